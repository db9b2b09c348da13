import { addNetwork, type Runtime } from '../../conflist/runtime.ts';
import type { NetworkList } from '../../conflist/network-list.ts';
import { readAsset } from '../../shared/assets.ts';
import { makeIdentities, type Identity } from './certificates.ts';
import { type Children, resolveInside } from './children.ts';
import { virtualName } from './dns.ts';
import { acceptInAdminChain } from './shared-rules.ts';
import {
  APP_UID,
  NAMES,
  type Group,
  PROXY_OUTBOUND_PORT,
  PROXY_UID,
  type Plan,
  UPSTREAM_PORT,
  groupsOf,
  nomadAttachment,
} from './plan.ts';
import type { Progress } from './progress.ts';
import type { SidecarConfig, Upstream } from './sidecar.ts';
import { programFor } from './teardown.ts';
import { tool } from './tool.ts';
import { randomUUID } from 'node:crypto';

/** The running example, as far as the assertions and the picture want to know. */
export interface Addresses {
  readonly api: string;
  readonly dashboard: string;
  /** With two families, as the next. */
  readonly apiIpv6: string | undefined;
  readonly dashboardIpv6: string | undefined;
}

/**
 * Sets up the example in the order in which Nomad, Consul and the groups' programs would start.
 * @param throwIfStopped called between the steps; throws when the user asked to stop
 */
export async function setUp(
  plan: Plan,
  parts: {
    list: NetworkList;
    runtime: Runtime;
    children: Children;
    progress: Progress;
    throwIfStopped: () => void;
  },
): Promise<Addresses> {
  const { children, progress, throwIfStopped } = parts;
  const step = async <T>(what: string | ((result: T) => string), work: () => T | Promise<T>): Promise<T> => {
    throwIfStopped();
    return progress.step(what, work);
  };
  for (const { netns } of groupsOf(plan))
    await step(`network namespace ${netns}`, () => tool('ip', ['netns', 'add', netns]));
  const [api = [], dashboard = []] = await connectGroups(plan, parts, step);
  if (plan.dns !== undefined) {
    await step(`simulated Consul DNS on ${plan.dns.address}:${plan.dns.port}`, () =>
      startDns(plan, children),
    );
    await step(
      (seen: string) => seen,
      () => resolveInside(plan, children),
    );
  }
  const identities = await step('certificates of a temporary CA', () =>
    makeIdentities(
      `${randomUUID()}.consul`,
      groupsOf(plan).map(({ service }) => service),
    ),
  );
  for (const group of groupsOf(plan)) {
    await step(
      `${plan.options.envoy === undefined ? 'simulated sidecar' : 'Envoy'} of ${group.service} as user ${PROXY_UID}`,
      () => startSidecar(plan, group, identities, children),
    );
  }
  await step(`count-api on port ${plan.api.appPort}`, () => startCountApi(plan, children));
  await step(`dashboard on port ${plan.dashboard.appPort}, which asks ${plan.countingUrl}`, () =>
    startDashboard(plan, children),
  );
  return { api: api[0] ?? '', dashboard: dashboard[0] ?? '', apiIpv6: api[1], dashboardIpv6: dashboard[1] };
}

type Step = <T>(what: string | ((result: T) => string), work: () => T | Promise<T>) => Promise<T>;

async function connectGroups(
  plan: Plan,
  { list, runtime }: { list: NetworkList; runtime: Runtime },
  step: Step,
): Promise<string[][]> {
  const addresses: string[][] = [];
  for (const group of groupsOf(plan)) {
    for (const subnet of plan.subnets) acceptInAdminChain(programFor(subnet), NAMES.bridge, subnet);
    const address = await step(
      (own: string[]) =>
        `group "${group.name}" connected with address ${own.join(' and ')}, by ${list.plugins.map(({ type }) => type).join(', ')}`,
      () => addressesOf(addNetwork(runtime, list, nomadAttachment(group, plan.dns)).ips),
    );
    addresses.push(address);
  }
  return addresses;
}

function addressesOf(ips: readonly { address: string }[]): string[] {
  return ips.map(({ address }) => address.replace(/\/.*/, ''));
}

function startDns({ dns, recursors, api, dashboard }: Plan, children: Children): Promise<unknown> {
  const zone = Object.fromEntries(
    [api, dashboard].map(({ service, virtualAddress }) => [virtualName(service), virtualAddress]),
  );
  return children.start({
    name: 'Consul DNS',
    order: {
      role: 'dns',
      uid: APP_UID,
      config: { address: dns?.address ?? '', port: dns?.port ?? 0, zone, recursors },
    },
  });
}

function startSidecar(
  plan: Plan,
  group: Group,
  identities: readonly Identity[],
  children: Children,
): Promise<unknown> {
  const identity = identities.find(({ service }) => service === group.service);
  if (identity === undefined) throw new Error(`no certificate for ${group.service}`);
  const config: SidecarConfig = {
    identity,
    inbound: {
      port: group.proxyPort,
      appPort: group.appPort,
      allowed: plan.options.deny ? [] : allowedCallers(plan, group),
    },
    outbound: outboundOf(plan, group),
  };
  return children.start({
    name: `sidecar of ${group.service}`,
    netns: group.netns,
    order:
      plan.options.envoy === undefined
        ? { role: 'sidecar', uid: PROXY_UID, config }
        : { role: 'envoy', uid: PROXY_UID, config: { program: plan.options.envoy, sidecar: config } },
  });
}

/** The example's only intention: dashboard -> count-api. */
function allowedCallers({ api, dashboard }: Plan, group: Group): string[] {
  return group === api ? [dashboard.service] : [];
}

function outboundOf(plan: Plan, group: Group): SidecarConfig['outbound'] {
  const upstreams = groupsOf(plan).map((other): Upstream => ({
    service: other.service,
    virtualAddress: other.virtualAddress,
    host: plan.hostAddress,
    port: other.proxyPort,
  }));
  if (!plan.options.upstreams) return { mode: 'transparent', port: PROXY_OUTBOUND_PORT, upstreams };
  const wanted =
    group === plan.dashboard ? upstreams.filter(({ service }) => service === plan.api.service) : [];
  return { mode: 'upstreams', listeners: wanted.map((upstream) => ({ port: UPSTREAM_PORT, upstream })) };
}

function startCountApi({ api }: Plan, children: Children): Promise<unknown> {
  const order = { role: 'count-api', uid: APP_UID, config: { port: api.appPort } } as const;
  return children.start({ name: 'count-api', netns: api.netns, order });
}

function startDashboard({ dashboard, countingUrl }: Plan, children: Children): Promise<unknown> {
  const config = {
    port: dashboard.appPort,
    url: countingUrl,
    page: readAsset('examples/countdash/dashboard.html'),
  };
  return children.start({
    name: 'dashboard',
    netns: dashboard.netns,
    order: { role: 'dashboard', uid: APP_UID, config },
  });
}
