import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniInterface, CniResult, CniRoute } from '../../shared/cni/results.ts';
import { NODE_CONFIG_FILE } from '../../shared/config/node-config.ts';
import { waitUntil } from '../../shared/kernel/deadline.ts';
import { isSameNamespace, openNamespace } from '../../shared/kernel/namespace.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { linkByName, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { portVlans } from '../../shared/kernel/rtnetlink/bridge-ports.ts';
import { routes, type RouteInfo } from '../../shared/kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import {
  containsAddress,
  formatAddress,
  formatCidr,
  networkOf,
  parseAddress,
  parseCidr,
  type AddressFamily,
  type Cidr,
} from '../../shared/net/address.ts';
import { hasMasquerade, missingMasquerade } from './backend.ts';
import { isPromiscuous } from './bridge.ts';
import { addedVlanGateway, isCutOff, vlanGatewayProblems, vlanProblems } from './check-vlans.ts';
import { settingsOfAdd, vlanGatewayName, type BridgeConfig } from './config.ts';
import { otherAddresses } from './container.ts';
import type { Context } from './context.ts';
import { missingForwarding } from './gateway.ts';
import { hostEndOf, identify } from './identity.ts';
import { ipamOf } from './ipam-plugin.ts';
import { isolationByNode } from './isolation.ts';
import { hasMacSpoofCheck, missingMacSpoofCheck } from './nftables/macspoof.ts';
import { tableOf, wantedVlans } from './plan.ts';

/**
 * Compares the network with what ADD set up, not with what today's configuration would set up; read-only. Nomad destroys the network of an allocation whose CHECK fails, so a problem must
 * still be there at a second look. The error names every problem.
 * @throws CniError
 */
export function check(call: Invocation<BridgeConfig>): void {
  const prevResult = call.prevResult;
  if (prevResult === undefined) {
    throw new CniError(CniCode.InvalidNetworkConfig, 'Required prevResult missing', {
      details: 'CHECK compares with the result of ADD; the runtime has lost it',
    });
  }
  const setup = settingsOfAdd(call, call.config.raw['type']);
  const bridge = bridgeOfAdd(call, setup, prevResult);
  const { portIsolation } = setup ?? call.config;
  const byNode = portIsolation ? undefined : isolationByNode(call);
  const isLater = (key: Finding['key']): boolean => key === 'portIsolation' && byNode === 'later';
  const effective = {
    ...call,
    config: { ...(setup ?? call.config), bridge, portIsolation: portIsolation || byNode !== undefined },
  };
  let findings: Finding[] = [];
  const problems = (): Finding[] =>
    findings.filter(({ key }) => key === undefined || (setup !== undefined && !isLater(key)));
  waitUntil(SECOND_LOOK_MS, () => {
    findings = findProblems(effective, prevResult);
    return problems().length === 0;
  });
  for (const line of warnings(call, effective.config, setup, findings)) call.warn(line);
  if (setup !== undefined && findings.some(({ key }) => isLater(key)))
    call.warn(`"isolation" of ${NODE_CONFIG_FILE} has changed since ADD; this container is not isolated`);
  if (problems().length > 0) {
    throw new CniError(
      CniCode.Internal,
      problems()
        .map(({ text }) => text)
        .join('; '),
    );
  }
  const hasAddresses = prevResult.ips.length > 0;
  if (setup === undefined && !hasAddresses && call.config.ipamType !== '') {
    call.warn('"ipam" is set, and ADD returned no address: new containers only');
  } else ipamOf(effective)?.check();
}

/**
 * What is not as configured. `key`: the configuration key that wants it, if nothing but today's configuration says that ADD set it up. It
 * is damage if the cached configuration of ADD has the key too; without one it is a warning.
 */
interface Finding {
  readonly text: string;
  readonly key?: keyof BridgeConfig;
}

const damage = (text: string): Finding => ({ text });

/** Differences that the configuration causes: running containers keep what ADD set up. */
function warnings(
  call: Invocation<BridgeConfig>,
  effective: BridgeConfig,
  setup: BridgeConfig | undefined,
  findings: readonly Finding[],
): string[] {
  const lines =
    setup === undefined
      ? findings.flatMap(({ key, text }) => (key === undefined ? [] : [`"${key}": ${text}`]))
      : changedKeys(setup, call.config).map((key) => `"${key}" has changed since ADD`);
  if (setup === undefined && effective.bridge !== call.config.bridge) {
    lines.push(`"bridge" is ${call.config.bridge}, the container is on ${effective.bridge}`);
  }
  return lines.map((line) => `${line}; this container keeps its network as it was set up`);
}

function changedKeys(setup: BridgeConfig, now: BridgeConfig): string[] {
  // The runtime adds `mac` to each call; it is not in the cached configuration.
  const comparable = (settings: BridgeConfig): Record<string, unknown> => ({
    ...settings,
    raw: undefined,
    ipamType: undefined,
    mac: undefined,
    ipam: settings.raw['ipam'],
  });
  const [before, after] = [comparable(setup), comparable(now)];
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].filter(
    (key) => sortedJson(before[key]) !== sortedJson(after[key]),
  );
}

/** Runtimes written in Go sort the keys of a configuration that they cache. */
function sortedJson(value: unknown): string | undefined {
  return JSON.stringify(value, (_, member: unknown) =>
    typeof member === 'object' && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  );
}

/** The bridge that ADD used: of its configuration, else the one that prevResult lists. */
function bridgeOfAdd(
  { config }: Invocation<BridgeConfig>,
  setup: BridgeConfig | undefined,
  { interfaces }: CniResult,
): string {
  if (setup !== undefined) return setup.bridge;
  const [first, ...others] = interfaces.filter(({ sandbox }) => !sandbox).map(({ name }) => name);
  return first === undefined || others.includes(config.bridge) ? config.bridge : first;
}

/** Long enough for a reload of the packet filter or of a network manager. */
const SECOND_LOOK_MS = 200;

interface CheckContext extends Context {
  readonly prevResult: CniResult;
  /** The container's interface in prevResult. */
  readonly container: CniInterface;
}

function findProblems(call: Invocation<BridgeConfig>, prevResult: CniResult): Finding[] {
  using namespace = openNamespace(call.netns);
  using host = Rtnetlink.open();
  using inside = Rtnetlink.openIn(namespace);
  const container = containerInterface(call, prevResult);
  const context = { call, prevResult, identity: identify(call), namespace, host, inside, container };
  const link = linkByName(inside, container.name);
  const end = link === undefined ? undefined : hostEndOf(host, link, namespace);
  return [
    // 1. The container's interface, its addresses and routes.
    ...sandboxProblems(call.netns, container.sandbox ?? '').map(damage),
    ...(link === undefined
      ? [damage(`interface ${container.name} is missing in ${call.netns}`)]
      : [
          ...linkProblems(context, link, end),
          ...addressProblems(context, link),
          ...routeProblems(context, link),
        ].map(damage)),
    // 2. The bridge, its port, the gateway.
    ...bridgeProblems(context, end),
    // 3. Masquerading and the MAC check: `iptables -F` removes them, and the reference's CHECK does not look at them.
    ...(link === undefined ? [] : packetFilterProblems(context, link, end)),
  ];
}

/** The interface of prevResult that this call is about. */
function containerInterface({ ifname }: Invocation<BridgeConfig>, prevResult: CniResult): CniInterface {
  const found = prevResult.interfaces.find(({ name, sandbox }) => name === ifname && sandbox);
  if (found !== undefined) return found;
  throw new CniError(
    CniCode.Internal,
    `prevResult lists no interface ${JSON.stringify(ifname)} in a sandbox`,
    { details: `it lists: ${prevResult.interfaces.map(({ name }) => name).join(', ') || 'none'}` },
  );
}

function sandboxProblems(netns: string, sandbox: string): string[] {
  if (netns === sandbox || isSameNamespace(netns, sandbox)) return [];
  return [`Sandbox in prevResult ${sandbox} doesn't match configured netns: ${netns}`];
}

function linkProblems(
  { call, container }: CheckContext,
  link: LinkInfo,
  end: LinkInfo | undefined,
): string[] {
  const { name } = container;
  const problems: string[] = [];
  if (link.kind !== 'veth')
    problems.push(`interface ${name} is not a veth but ${link.kind ?? 'a plain interface'}`);
  if (container.mac !== undefined && container.mac.toLowerCase() !== link.mac) {
    problems.push(`interface ${name} has MAC ${link.mac}, ADD gave it ${container.mac}`);
  }
  if (!link.up && !call.config.disableContainerInterface) problems.push(`interface ${name} is down`);
  if (end === undefined) problems.push(`the veth of ${name} has no other end on this host`);
  return problems;
}

/** Addresses that this interface must have according to the result of ADD. */
function expectedAddresses({ prevResult, container }: CheckContext): string[] {
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
    const matches = (one: RouteInfo): boolean => isRoute(one, route, link, own);
    if (present.some(matches)) return [];
    // A policy-routing plugin (sbr) moves routes to tables of its own.
    if (route.table === undefined && routes(inside, { table: 'all' }).some(matches)) return [];
    return [describeMissing(route, link)];
  });
}

/**
 * ADD chose the gateway of a route without one. A route whose gateway is in none of this interface's networks came from a chained plugin,
 * and may use any interface.
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

/** @param end the host end, if it exists */
function bridgeProblems(context: CheckContext, end: LinkInfo | undefined): Finding[] {
  const { host, call, prevResult } = context;
  const { config } = call;
  const bridge = linkByName(host, config.bridge);
  if (bridge === undefined) return [damage(`bridge ${config.bridge} is missing`)];
  if (bridge.kind !== 'bridge')
    return [damage(`${bridge.name} is not a bridge but ${bridge.kind ?? 'a plain interface'}`)];
  const found: Finding[] = [];
  const known = prevResult.interfaces.find(({ name }) => name === bridge.name);
  if (known === undefined) found.push(damage(`prevResult does not list bridge ${bridge.name}`));
  else if (known.sandbox)
    found.push(damage(`prevResult has bridge ${bridge.name} in sandbox ${known.sandbox}`));
  if (known?.mac !== undefined && known.mac.toLowerCase() !== bridge.mac) {
    found.push(damage(`bridge ${bridge.name} has MAC ${bridge.mac}, it had ${known.mac}`));
  }
  if (!bridge.up) found.push(damage(`bridge ${bridge.name} is down`));
  if (config.promiscMode && !isPromiscuous(bridge)) {
    found.push({ key: 'promiscMode', text: `bridge ${bridge.name} is not in promiscuous mode` });
  }
  if (end !== undefined) found.push(...portProblems(context, bridge, end));
  if (config.isGateway) found.push(...gatewayProblems(context, bridge));
  return found;
}

function portProblems(context: CheckContext, bridge: LinkInfo, end: LinkInfo): Finding[] {
  const { call } = context;
  const { hairpinMode, portIsolation } = call.config;
  const found: Finding[] = [];
  if (end.master !== bridge.index) found.push(damage(`${end.name} is not a port of bridge ${bridge.name}`));
  if (!end.up) found.push(damage(`${end.name} is down`));
  if (end.port !== undefined && hairpinMode && !end.port.hairpin)
    found.push({ key: 'hairpinMode', text: `${end.name} is not in hairpin mode` });
  if (end.port !== undefined && portIsolation && !end.port.isolated)
    found.push({ key: 'portIsolation', text: `${end.name} is not isolated` });
  return [...found, ...portVlanProblems(context, bridge, end)];
}

function portVlanProblems(context: CheckContext, bridge: LinkInfo, end: LinkInfo): Finding[] {
  const { config } = context.call;
  const wanted = wantedVlans(config);
  if (wanted.length === 0) return [];
  const present = portVlans(context.host, end.index);
  const isDamage = addedVlanGateway(config, context.prevResult) || isCutOff(bridge, present);
  const key = config.vlan === 0 ? 'vlanTrunk' : 'vlan';
  return vlanProblems(present, wanted, end).map((text) => (isDamage ? damage(text) : { key, text }));
}

/**
 * Without its gateway address the container's network does not work, so a missing one is damage even if only today's configuration asks
 * for it. The gateway interface of a VLAN is in prevResult if ADD created one.
 */
function gatewayProblems(context: CheckContext, bridge: LinkInfo): Finding[] {
  const { host, call } = context;
  const { vlan } = call.config;
  const name = vlan === 0 ? bridge.name : vlanGatewayName(bridge.name, vlan);
  const isNew = vlan !== 0 && !addedVlanGateway(call.config, context.prevResult);
  const found = (text: string): Finding => (isNew ? { key: 'vlan', text } : damage(text));
  const link = linkByName(host, name);
  if (link === undefined) return [found(`gateway interface ${name} is missing`)];
  const present = addresses(host, { index: link.index });
  const wanted = gatewayAddresses(context);
  const families = new Set<AddressFamily>(wanted.map(({ family }) => family));
  return [
    ...(vlan === 0 ? [] : vlanGatewayProblems(host, bridge, link, vlan).map(found)),
    ...wanted
      .filter(({ address }) => !present.some((one) => one.address === address && !one.dadFailed))
      .map(({ address }) => found(`${link.name} lacks the gateway address ${address}`)),
    ...missingForwarding([...families]).map((path) =>
      damage(`forwarding is off: ${path.replaceAll('/', '.')} is not 1`),
    ),
  ];
}

/** Gateway and prefix length of every address of this interface; those of other interfaces come from chained plugins. */
function gatewayAddresses({
  prevResult,
  container,
}: CheckContext): { address: string; family: AddressFamily }[] {
  const own = prevResult.interfaces.indexOf(container);
  return prevResult.ips.flatMap(({ address, gateway, interface: on }) => {
    if (on !== undefined && on !== own) return [];
    const cidr = parseCidr(address);
    const parsed = gateway === undefined ? undefined : parseAddress(gateway);
    if (cidr === undefined || parsed === undefined) return [];
    return [{ address: formatCidr({ address: parsed, prefix: cidr.prefix }), family: parsed.family }];
  });
}

/** Without any rule of the attachment, ADD may have set none up: the configuration of ADD decides. */
function packetFilterProblems(context: CheckContext, link: LinkInfo, end: LinkInfo | undefined): Finding[] {
  const { call, inside } = context;
  const found: Finding[] = [];
  const own = expectedAddresses(context);
  if (call.config.ipMasq && own.length > 0) {
    const missing = missingMasquerade(call, { addresses: own, keep: otherAddresses(inside, link.index) });
    const text = `masquerading is not complete: ${missing ?? ''}`;
    if (missing !== undefined) found.push(hasMasquerade(call) ? damage(text) : { key: 'ipMasq', text });
  }
  if (call.config.macspoofchk && end !== undefined) {
    const missing = missingMacSpoofCheck(call, { hostInterface: end.name, mac: link.mac ?? '' });
    const text = `the MAC spoofing check is not complete: ${missing ?? ''}`;
    if (missing !== undefined)
      found.push(hasMacSpoofCheck(call) ? damage(text) : { key: 'macspoofchk', text });
  }
  return found;
}

function canonical(address: string): string {
  const cidr = parseCidr(address);
  return cidr === undefined ? address : formatCidr(cidr);
}

function canonicalNetwork(destination: string): string {
  const cidr = parseCidr(destination);
  return cidr === undefined ? destination : formatCidr(networkOf(cidr));
}
