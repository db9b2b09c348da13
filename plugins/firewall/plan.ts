import { formatAddress, formatCidr, networkOf, parseCidr, type Cidr } from '../../shared/net/address.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import type { Attachment } from '../../shared/packetfilter/names.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { FirewallSettings } from './config.ts';

/** Whom the rules are about. */
export interface Subject extends Attachment {
  /** As hosts, `10.88.0.2/32`, by family. */
  readonly addresses: Readonly<Record<Family, readonly string[]>>;
  /** The networks of these addresses, `10.88.0.0/16`. */
  readonly subnets: Readonly<Record<Family, readonly string[]>>;
  /** Only where an ingress policy needs it. */
  readonly bridge: string | undefined;
  /** Interfaces of the result that are the host's: bridge first, then the host's end of the pair. */
  readonly hostLinks: readonly string[];
}

/** Whose rules are to go. */
export interface Departing extends Attachment {
  readonly addresses: Readonly<Record<Family, readonly string[]>>;
  /** The zone of firewalld that the container was put into, if it was. */
  readonly zone: string;
}

/** Everything that could be wrong is found here, before anything is changed. */
export function subjectOf(
  { prevResult, network, containerId }: Invocation<unknown>,
  { ingressPolicy }: FirewallSettings,
): Subject {
  if (prevResult === undefined) {
    throw new CniError(CniCode.InvalidNetworkConfig, 'missing prevResult from earlier plugin', {
      details: 'put firewall behind the plugin that makes the interface, such as bridge',
    });
  }
  const texts = prevResult.ips.map(({ address }) => address);
  return {
    network,
    containerId,
    addresses: hostsByFamily(texts),
    subnets: byFamily(texts, (cidr) => formatCidr(networkOf(cidr))),
    bridge: ingressPolicy === 'open' ? undefined : bridgeOf(prevResult, ingressPolicy),
    hostLinks: prevResult.interfaces.filter(({ sandbox }) => (sandbox ?? '') === '').map(({ name }) => name),
  };
}

/** Addresses with or without prefix length, as rules name them. What is no address is left out. */
export function hostsByFamily(addresses: readonly string[]): Record<Family, string[]> {
  return byFamily(addresses, asHost);
}

function byFamily(addresses: readonly string[], write: (cidr: Cidr) => string): Record<Family, string[]> {
  const parsed = addresses
    .map((text) => parseCidr(text) ?? parseCidr(text.includes(':') ? `${text}/128` : `${text}/32`))
    .filter((cidr) => cidr !== undefined);
  const written = (family: Family): string[] => [
    ...new Set(parsed.filter(({ address }) => address.family === family).map(write)),
  ];
  return { ipv4: written('ipv4'), ipv6: written('ipv6') };
}

function asHost({ address }: Cidr): string {
  return `${formatAddress(address)}/${address.family === 'ipv4' ? 32 : 128}`;
}

/** The reference's rule: the first interface of the result, which is bridge's bridge. */
function bridgeOf({ interfaces }: CniResult, policy: string): string {
  const name = interfaces[0]?.name ?? '';
  if (name !== '' && interfaces[0]?.sandbox === undefined) return name;
  throw new CniError(
    CniCode.InvalidNetworkConfig,
    `interface needs to be set for ingress policy "${policy}", make sure to chain "firewall" plugin with "bridge"`,
    { details: 'the first interface of prevResult must be a bridge of this host' },
  );
}
