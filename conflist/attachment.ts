import { CniCode, CniError } from '../shared/cni/errors.ts';
import { renderResult, type CniResult } from '../shared/cni/results.ts';
import type { ListedPlugin, NetworkList } from './network-list.ts';

/** One container's connection to a network, as a runtime asks for it (libcni's RuntimeConf). */
export interface Attachment {
  readonly containerId: string;
  /** Path of the network namespace; '' when it is gone (DEL only). */
  readonly netns: string;
  readonly ifname: string;
  /** CNI_ARGS in the order to send; the order has no meaning. */
  readonly args: readonly (readonly [key: string, value: string])[];
  /** Values for plugins that declare the capability: `portMappings`, ... */
  readonly capabilityArgs: Readonly<Record<string, unknown>>;
}

/** `K=V;K=V`. Throws CniError 4 for keys and values that would be read back differently. */
export function joinArgs(args: Attachment['args']): string {
  for (const [key, value] of args) {
    if (/^[^;=]+$/.test(key) && !value.includes(';')) continue;
    throw new CniError(
      CniCode.InvalidEnvironment,
      `CNI_ARGS cannot carry ${JSON.stringify(`${key}=${value}`)}: a key has no "=", and neither key nor value has ";"`,
    );
  }
  return args.map(([key, value]) => `${key}=${value}`).join(';');
}

/**
 * The configuration that one plugin reads on stdin: its own, with `name`, `cniVersion`, `prevResult` and, for the capabilities that it
 * declares, `runtimeConfig`. Compact, keys sorted, as libcni writes it.
 */
export function pluginInput(
  list: NetworkList,
  plugin: ListedPlugin,
  injected: {
    prevResult?: CniResult | undefined;
    capabilityArgs?: Readonly<Record<string, unknown>>;
    keys?: Readonly<Record<string, unknown>>;
  },
): string {
  const { prevResult, capabilityArgs = {}, keys = {} } = injected;
  const granted = Object.entries(capabilityArgs).filter(([name]) => plugin.capabilities[name] === true);
  return JSON.stringify(
    sortKeys({
      ...plugin.raw,
      name: list.name,
      cniVersion: list.cniVersion,
      ...(prevResult === undefined ? {} : { prevResult: renderResult(list.cniVersion, prevResult) }),
      ...(granted.length === 0 ? {} : { runtimeConfig: Object.fromEntries(granted) }),
      ...keys,
    }),
  );
}

/** The same value with the keys of every plain object in order of their characters. */
export function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype)
    return value;
  const entries = Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1));
  return Object.fromEntries(entries.map(([key, inner]) => [key, sortKeys(inner)]));
}

/**
 * A port mapping as Nomad sends it: go-cni's structure has no JSON names, so the keys come capitalised, where the
 * specification's are `hostPort`, ...; plugins match them in any case.
 */
export interface PortMapping {
  readonly HostPort: number;
  readonly ContainerPort: number;
  readonly Protocol: string;
  /** '' for all addresses of the host. */
  readonly HostIP: string;
}

const PROTOCOLS = ['tcp', 'udp', 'sctp'];
/** `[hostIP:]host[:container][/protocol]`, an IPv6 host address in brackets. */
const FORM =
  /^(?:(?:\[(?<v6>[0-9a-fA-F:.]+)\]|(?<v4>\d+\.\d+\.\d+\.\d+)):)?(?<host>\d+)(?::(?<container>\d+))?(?:\/(?<protocol>[a-z]+))?$/;

/**
 * `9002:9002/tcp`, `9002` or `192.0.2.1:80:8080/udp`. Without a protocol the port is mapped for tcp and for udp, as Nomad
 * maps every port of a job. Throws TypeError naming the rule.
 */
export function parsePortMapping(text: string): PortMapping[] {
  const { v4, v6, host, container, protocol } = FORM.exec(text)?.groups ?? {};
  if (host === undefined) {
    throw new TypeError(
      `a port mapping is [hostIP:]hostPort[:containerPort][/tcp|/udp|/sctp], got ${JSON.stringify(text)}`,
    );
  }
  if (protocol !== undefined && !PROTOCOLS.includes(protocol)) {
    throw new TypeError(
      `the protocol of a port mapping must be ${PROTOCOLS.join(', ')}, got "${protocol}" in ${JSON.stringify(text)}`,
    );
  }
  const ports = {
    HostPort: port(host, text),
    ContainerPort: port(container ?? host, text),
    HostIP: v4 ?? v6 ?? '',
  };
  return protocol === undefined ? bothProtocols(ports) : [mapping(ports, protocol)];
}

/** The two entries that Nomad sends for each port of a job. */
export function bothProtocols(ports: Omit<PortMapping, 'Protocol'>): PortMapping[] {
  return [mapping(ports, 'tcp'), mapping(ports, 'udp')];
}

function mapping(
  { HostPort, ContainerPort, HostIP }: Omit<PortMapping, 'Protocol'>,
  Protocol: string,
): PortMapping {
  return { HostPort, ContainerPort, Protocol, HostIP };
}

function port(digits: string, text: string): number {
  const number = Number(digits);
  if (number >= 1 && number <= 65535) return number;
  throw new TypeError(`a port must be 1 to 65535, got ${digits} in ${JSON.stringify(text)}`);
}
