import type { EnvoyStatistics } from './envoy/statistics.ts';
import type { Addresses } from './example.ts';
import {
  NAMES,
  type Group,
  type GroupPort,
  PROXY_OUTBOUND_PORT,
  PROXY_UID,
  type Plan,
  UPSTREAM_PORT,
} from './plan.ts';

export interface SidecarStatistics {
  readonly api: EnvoyStatistics;
  readonly dashboard: EnvoyStatistics;
}

/** The packet path of the running example, as lines of text. @param counted where the sidecars are Envoy */
export function drawPicture(plan: Plan, addresses: Addresses, counted?: SidecarStatistics): string[] {
  const { hostAddress, gateway, subnets, dns, api, dashboard, options } = plan;
  const mapped = [
    ...dashboard.ports.map((port) => mapping(port, addresses.dashboard, dashboard)),
    ...api.ports.map((port) => mapping(port, addresses.api, api)),
  ];
  return [
    `host ${hostAddress}`,
    ...mapped.map((line) => ` |  ${line}`),
    ` |  FORWARD: NOMAD-ADMIN accepts packets to ${subnets.join(', ')} out of ${NAMES.bridge}`,
    ` |`,
    `bridge ${NAMES.bridge} ${gateway}${dns === undefined ? '' : `     Consul DNS ${dns.address}:${dns.port}, udp and tcp`}`,
    ` |`,
    ` +-- namespace ${dashboard.netns}, eth0 ${addresses.dashboard}`,
    ...[...outgoing(plan), ...countedOut(counted?.dashboard)].map((line) => ` |     ${line}`),
    ` |`,
    ` +-- namespace ${api.netns}, eth0 ${addresses.api}`,
    ...[...incoming(plan, api), ...countedIn(counted?.api)].map((line) => `       ${line}`),
    '',
    `intention: ${dashboard.service} -> ${api.service}: ${options.deny ? 'deny' : 'allow'}`,
  ];
}

/** One published port: host port, destination, program. */
function mapping(port: GroupPort, address: string, group: Group): string {
  const who = port.reserved ? 'the page' : `sidecar of ${group.service}`;
  return `${`:${port.host} -> ${address}:${port.to}`.padEnd(32)}${who} (tcp and udp)`;
}

function outgoing({ dashboard, api, dns, countingUrl, options, hostAddress }: Plan): string[] {
  const far = `mutual TLS to ${hostAddress}:${api.proxyPort}`;
  const calls = `dashboard :${dashboard.appPort} calls ${countingUrl}`;
  if (options.upstreams)
    return [calls, `  port ${UPSTREAM_PORT} is the sidecar (user ${PROXY_UID}) -> ${far}`];
  return [
    calls,
    `  name -> ${dns?.address}:53, redirected to port ${dns?.port} -> ${api.virtualAddress}`,
    `  tcp -> redirected to 127.0.0.1:${PROXY_OUTBOUND_PORT}, the sidecar (user ${PROXY_UID}) -> ${far}`,
    `  not redirected: user ${PROXY_UID}, 127.0.0.1, and incoming port ${dashboard.appPort}`,
  ];
}

function incoming({ options }: Plan, { proxyPort, appPort }: Group): string[] {
  const how = options.upstreams ? '' : 'every incoming tcp connection is redirected here; ';
  return [
    `sidecar :${proxyPort} (user ${PROXY_UID}): ${how}checks certificate and intention`,
    `  -> 127.0.0.1:${appPort} count-api`,
  ];
}

function countedOut(counted: EnvoyStatistics | undefined): string[] {
  if (counted === undefined) return [];
  const { callsOut, handshakesOut, passedThrough } = counted;
  return [
    `  Envoy counted: ${callsOut} connections to count-api, ${handshakesOut} TLS handshakes, ${passedThrough} passed through`,
  ];
}

function countedIn(counted: EnvoyStatistics | undefined): string[] {
  if (counted === undefined) return [];
  const { callsIn, handshakesIn, failedIn, allowed, denied } = counted;
  return [
    `  Envoy counted: ${callsIn} connections, ${handshakesIn} TLS handshakes, ${failedIn} failed; RBAC: ${allowed} allowed, ${denied} denied`,
  ];
}
