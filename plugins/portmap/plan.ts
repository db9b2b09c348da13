import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { joinProblems } from '../../shared/config/sentences.ts';
import { formatAddress, parseCidr, type Cidr } from '../../shared/net/address.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { PortForwarding } from './backend.ts';
import type { PortmapSettings } from './config.ts';
import { contradictingMappings, describeMapping, type PortMapping } from './mapping.ts';

export const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];

export interface Plan {
  /** One entry for each family in which the container has an address and a mapping applies. */
  readonly forwardings: readonly PortForwarding[];
  /** Mappings that apply in no family of the container, each with the reason. */
  readonly ineffective: readonly { readonly mapping: PortMapping; readonly reason: string }[];
}

/** The desired state. */
export function planOf(
  attachment: Pick<Invocation<unknown>, 'network' | 'containerId' | 'ifname'>,
  settings: PortmapSettings,
  result: CniResult,
): Plan {
  const { network, containerId, ifname } = attachment;
  const { mappings = [] } = settings;
  if (mappings.length === 0) return { forwardings: [], ineffective: [] };
  const addresses = containerAddresses(result, ifname);
  const forwardings = FAMILIES.flatMap((family) => {
    const container = addresses[family];
    const own = mappings.filter(({ families }) => families.includes(family));
    if (container === undefined || own.length === 0) return [];
    return [{ network, containerId, family, settings, container, mappings: own }];
  });
  const ineffective = mappings
    .filter(({ families }) => families.every((family) => addresses[family] === undefined))
    .map((mapping) => ({
      mapping,
      reason: `the container has no ${familiesText(mapping.families)} address`,
    }));
  return { forwardings, ineffective };
}

/**
 * For ADD: warns of mappings without effect.
 * @throws CniError 7 when no mapping has an effect, or when two of them forward the same host port
 */
export function validatePlan(
  { forwardings, ineffective }: Plan,
  { mappings = [], portConflict }: PortmapSettings,
  warn: (line: string) => void,
): void {
  const contradictions = portConflict === 'reference' ? [] : contradictingMappings(mappings);
  if (contradictions.length > 0) {
    throw new CniError(
      CniCode.InvalidNetworkConfig,
      `invalid portmap configuration: ${joinProblems(contradictions)}`,
    );
  }
  const lines = ineffective.map(({ mapping, reason }) => `${describeMapping(mapping)}: ${reason}`);
  if (mappings.length > 0 && forwardings.length === 0) {
    throw new CniError(
      CniCode.InvalidNetworkConfig,
      `no port mapping has an effect: ${joinProblems(lines)}`,
      { details: 'change "hostIP" of the mappings, or give the container an address of that family' },
    );
  }
  if (lines.length > 0) warn(`port mappings without effect: ${joinProblems(lines)}`);
  const loopback = forwardings.flatMap(({ family, mappings: own, settings }) =>
    own.filter(({ hostAddress }) => {
      const text = hostAddress === undefined ? '' : formatAddress(hostAddress);
      return family === 'ipv6' ? text === '::1' : text.startsWith('127.') && !settings.snat;
    }),
  );
  if (loopback.length > 0) {
    warn(
      `port mappings without effect: ${joinProblems(loopback.map(describeMapping))}: the kernel does not forward ` +
        'connections to ::1, and to 127.0.0.0/8 only with "snat"',
    );
  }
}

/** @throws CniError 7 when the plugin is the first of its list */
export function requirePrevResult({ prevResult }: Invocation<unknown>): CniResult {
  if (prevResult !== undefined) return prevResult;
  throw new CniError(CniCode.InvalidNetworkConfig, 'must be called as chained plugin', {
    details: 'put portmap after the plugin that creates the interface, such as bridge',
  });
}

/**
 * The first address of each family on the container's interface. Addresses of other interfaces, or of interfaces on the host, do not
 * count. An address without a valid interface index does: some plugins omit the index or get it wrong.
 */
function containerAddresses(result: CniResult, ifname: string): Readonly<Partial<Record<Family, Cidr>>> {
  const own = result.ips.filter(({ interface: index }) => {
    const link = index === undefined ? undefined : result.interfaces[index];
    return link === undefined || (link.name === ifname && (link.sandbox ?? '') !== '');
  });
  const addresses = own.map(({ address }) => parseCidr(address)).filter((cidr) => cidr !== undefined);
  const ipv4 = addresses.find(({ address }) => address.family === 'ipv4');
  const ipv6 = addresses.find(({ address }) => address.family === 'ipv6');
  return { ...(ipv4 === undefined ? {} : { ipv4 }), ...(ipv6 === undefined ? {} : { ipv6 }) };
}

function familiesText(families: readonly Family[]): string {
  return families.map((family) => (family === 'ipv4' ? 'IPv4' : 'IPv6')).join(' or ');
}
