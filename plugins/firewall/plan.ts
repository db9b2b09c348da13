import { formatAddress, formatCidr, networkOf, parseCidr, type Cidr } from '../../shared/net/address.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import type { Attachment } from '../../shared/packetfilter/names.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { FirewallSettings } from './config.ts';

/** Addresses as rules name them, `10.88.0.2/32`. */
export type HostsByFamily = Readonly<Record<Family, readonly string[]>>;

export const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];

/** What ADD sets up and CHECK expects: the settings, applied to the result of the earlier plugins. */
export interface FirewallPlan extends Attachment, Omit<FirewallSettings, 'backend'> {
  readonly addresses: HostsByFamily;
  /** The networks of these addresses, `10.88.0.0/16`. */
  readonly subnets: HostsByFamily;
  /** The bridge that the ingress policy applies to; undefined with the policy `open`. */
  readonly bridge: string | undefined;
  /** Interfaces of the result that are on the host: the bridge, then the host side of the veth pair. */
  readonly hostInterfaces: readonly string[];
}

/** @throws CniError 7 for everything that can be wrong with the earlier plugins' result, before anything is changed */
export function planFirewall(
  { prevResult, network, containerId }: Pick<Invocation<unknown>, 'prevResult' | 'network' | 'containerId'>,
  { adminChain, ingressPolicy, zone }: FirewallSettings,
): FirewallPlan {
  if (prevResult === undefined) {
    throw new CniError(CniCode.InvalidNetworkConfig, 'missing prevResult from earlier plugin', {
      details: 'chain firewall after the plugin that creates the interface, such as bridge',
    });
  }
  const addresses = prevResult.ips.map(({ address }) => address);
  return {
    network,
    containerId,
    adminChain,
    ingressPolicy,
    zone,
    addresses: hostsByFamily(addresses),
    subnets: byFamily(addresses, (cidr) => formatCidr(networkOf(cidr))),
    bridge: ingressPolicy === 'open' ? undefined : bridgeOf(prevResult, ingressPolicy),
    hostInterfaces: prevResult.interfaces
      .filter(({ sandbox }) => (sandbox ?? '') === '')
      .map(({ name }) => name),
  };
}

/** @param addresses with or without prefix length; other texts are left out */
export function hostsByFamily(addresses: readonly string[]): HostsByFamily {
  return byFamily(addresses, asHost);
}

function byFamily(addresses: readonly string[], write: (cidr: Cidr) => string): HostsByFamily {
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

/** As in the reference: the first interface of the result, which is the bridge if the bridge plugin made the result. */
function bridgeOf({ interfaces }: CniResult, policy: string): string {
  const name = interfaces[0]?.name ?? '';
  if (name !== '' && interfaces[0]?.sandbox === undefined) return name;
  throw new CniError(
    CniCode.InvalidNetworkConfig,
    `interface needs to be set for ingress policy "${policy}", make sure to chain "firewall" plugin with "bridge"`,
    { details: 'the first interface of prevResult must be a bridge on this host' },
  );
}
