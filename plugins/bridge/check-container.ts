import { statSync } from 'node:fs';
import {
  containsAddress,
  formatAddress,
  formatCidr,
  networkOf,
  parseAddress,
  parseCidr,
  type Cidr,
} from '../../shared/net/address.ts';
import type { CniRoute } from '../../shared/cni/types.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { linkByName, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { routes, type RouteInfo } from '../../shared/kernel/rtnetlink/routes.ts';
import type { CheckContext } from './check-host.ts';
import { hostEndOf } from './ownership.ts';
import { tableOf } from './plan.ts';

export interface ContainerFindings {
  readonly problems: string[];
  /** The container's interface and its end on the host, where they are there. */
  readonly link: LinkInfo | undefined;
  readonly end: LinkInfo | undefined;
}

/** The container's interface, its addresses and routes, and that its other end is on this host. */
export function checkContainer(context: CheckContext): ContainerFindings {
  const { call, inside, host, namespace, container } = context;
  const { name } = container;
  const problems = sandboxProblems(call.netns, container.sandbox ?? '');
  const link = linkByName(inside, name);
  if (link === undefined) {
    problems.push(`interface ${name} is missing in ${call.netns}`);
    return { problems, link, end: undefined };
  }
  if (link.kind !== 'veth')
    problems.push(`interface ${name} is not a veth but ${link.kind ?? 'a plain interface'}`);
  if (container.mac !== undefined && container.mac.toLowerCase() !== link.mac) {
    problems.push(`interface ${name} has MAC ${link.mac}, ADD gave it ${container.mac}`);
  }
  if (!link.up && !call.config.disableContainerInterface) problems.push(`interface ${name} is down`);
  const end = hostEndOf(host, link, namespace);
  if (end === undefined) problems.push(`the veth of ${name} has no other end on this host`);
  problems.push(...addressProblems(context, link), ...routeProblems(context, link));
  return { problems, link, end };
}

/** The same namespace may go by two paths: /var/run is a link to /run. */
function sandboxProblems(netns: string, sandbox: string): string[] {
  if (netns === sandbox || sameFile(netns, sandbox)) return [];
  return [`Sandbox in prevResult ${sandbox} doesn't match configured netns: ${netns}`];
}

function sameFile(one: string, other: string): boolean {
  const [a, b] = [one, other].map((path) => statSync(path, { bigint: true, throwIfNoEntry: false }));
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino;
}

/** Texts of addresses this interface must have, as ADD answered. */
export function expectedAddresses({ prevResult, container }: CheckContext): string[] {
  const at = prevResult.interfaces.indexOf(container);
  return prevResult.ips.filter((ip) => ip.interface === at).map(({ address }) => canonical(address));
}

function addressProblems(context: CheckContext, link: LinkInfo): string[] {
  const present = addresses(context.inside, { index: link.index });
  return expectedAddresses(context).flatMap((wanted) => {
    const found = present.find(({ address }) => address === wanted);
    if (found === undefined)
      return [`Failed to match addr ${wanted} on interface ${link.name}: it is missing`];
    return found.dadFailed
      ? [`address ${wanted} of ${link.name} is in use by another host (duplicate address)`]
      : [];
  });
}

function routeProblems(context: CheckContext, link: LinkInfo): string[] {
  const { inside, prevResult } = context;
  const own = expectedAddresses(context).flatMap((text) => parseCidr(text) ?? []);
  const tables = new Map<number, RouteInfo[]>();
  return prevResult.routes.flatMap((route) => {
    const table = tableOf(route);
    const present = tables.get(table) ?? routes(inside, { table });
    tables.set(table, present);
    return present.some((one) => isRoute(one, route, link, own)) ? [] : [describeMissing(route, link)];
  });
}

/**
 * A route that names no gateway went through whichever its family had; by which is ADD's business. One whose gateway lies in
 * none of this interface's networks came from a chained plugin, and may lead through any interface.
 */
function isRoute(present: RouteInfo, wanted: CniRoute, link: LinkInfo, own: readonly Cidr[]): boolean {
  if (present.destination !== canonicalNetwork(wanted.dst)) return false;
  const hops = [{ link: present.link, gateway: present.gateway }, ...present.hops];
  const gateway = wanted.gw ? parseAddress(wanted.gw) : undefined;
  if (gateway === undefined) return hops.some((hop) => hop.link === link.index);
  const text = formatAddress(gateway);
  const isOwn = own.some((cidr) => containsAddress(cidr, gateway));
  return hops.some((hop) => hop.gateway === text && (hop.link === link.index || !isOwn));
}

function describeMissing({ dst, gw }: CniRoute, { name }: LinkInfo): string {
  return `Expected Route to ${dst}${gw ? ` via ${gw}` : ''} on ${name} is missing`;
}

function canonical(address: string): string {
  const cidr = parseCidr(address);
  return cidr === undefined ? address : formatCidr(cidr);
}

function canonicalNetwork(destination: string): string {
  const cidr = parseCidr(destination);
  return cidr === undefined ? destination : formatCidr(networkOf(cidr));
}
