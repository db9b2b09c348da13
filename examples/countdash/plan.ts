import { randomInt, randomUUID } from 'node:crypto';
import type { HostFacts } from './host-facts.ts';
import type { ConsulDns, Group } from './nomad.ts';
import { DNS_PORT, type Options } from './options.ts';
import { NAMES } from './state.ts';
import { chooseSubnet, gatewayOf } from './subnet.ts';

/** The whole example, decided before anything is made. */
export interface Plan {
  readonly options: Options;
  readonly subnets: readonly string[];
  /** First address of the IPv4 subnet: the bridge's. */
  readonly gateway: string;
  /** Where others reach this host; the bridge's address on a host that has no other. */
  readonly hostAddress: string;
  readonly api: Group;
  readonly dashboard: Group;
  /** The stand-in for Consul DNS; none without transparent proxy. */
  readonly dns: ConsulDns | undefined;
  readonly recursors: readonly string[];
  readonly countingUrl: string;
}

export const APP_PORTS = { api: 9001, dashboard: 9002 } as const;
export const UPSTREAM_PORT = 8080;
/** Nomad's range for ports that a job leaves to it. */
const DYNAMIC_PORTS = { first: 20_000, last: 32_000 } as const;

/** @param isFree whether nobody uses a port of this host */
export function makePlan(options: Options, host: HostFacts, isFree: (port: number) => boolean): Plan {
  const reserved = [...host.recursors, ...(host.address === undefined ? [] : [host.address])];
  const families = options.dualStack ? (['ipv4', 'ipv6'] as const) : (['ipv4'] as const);
  const subnets = families.map((family) => chooseSubnet(family, host.routes, reserved));
  const gateway = gatewayOf(subnets[0] ?? '');
  const apiProxy = dynamicPort((port) => isFree(port) && port !== options.port);
  const dashboardProxy = dynamicPort((port) => isFree(port) && port !== options.port && port !== apiProxy);
  return {
    options,
    subnets,
    gateway,
    hostAddress: host.address ?? gateway,
    api: group('api', 'count-api', APP_PORTS.api, apiProxy, '240.0.0.1'),
    dashboard: {
      ...group('dashboard', 'count-dashboard', APP_PORTS.dashboard, dashboardProxy, '240.0.0.2'),
      ports: [
        { label: 'http', host: options.port, to: APP_PORTS.dashboard, reserved: true },
        proxyPortOf('count-dashboard', dashboardProxy),
      ],
    },
    dns: options.upstreams ? undefined : { address: gateway, port: DNS_PORT },
    recursors: host.recursors,
    countingUrl: options.upstreams ? `http://127.0.0.1:${UPSTREAM_PORT}` : 'http://count-api.virtual.consul',
  };
}

export function groupsOf({ api, dashboard }: Plan): [Group, Group] {
  return [api, dashboard];
}

function group(
  name: string,
  service: string,
  appPort: number,
  proxyPort: number,
  virtualAddress: string,
): Group {
  return {
    name,
    service,
    allocId: randomUUID(),
    netns: `${NAMES.namespaces}${name}`,
    ports: [proxyPortOf(service, proxyPort)],
    appPort,
    proxyPort,
    virtualAddress,
  };
}

/** `to = -1`: the same number inside, which is also where the sidecar listens. */
function proxyPortOf(service: string, port: number): Group['ports'][number] {
  return { label: `connect-proxy-${service}`, host: port, to: port, reserved: false };
}

function dynamicPort(isFree: (port: number) => boolean): number {
  const size = DYNAMIC_PORTS.last - DYNAMIC_PORTS.first;
  const start = randomInt(size);
  for (let step = 0; step < size; step += 1) {
    const port = DYNAMIC_PORTS.first + ((start + step) % size);
    if (isFree(port)) return port;
  }
  throw new Error(`every port from ${DYNAMIC_PORTS.first} to ${DYNAMIC_PORTS.last} is taken`);
}
