import {
  containsAddress,
  firstAddress,
  formatAddress,
  formatCidr,
  nextAddress,
  overlaps,
  parseAddress,
  parseCidr,
  type Cidr,
} from '../../shared/net/address.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';

/** Private networks seldom seen in practice; not Nomad's own default (172.26.64.0/20), so that both fit on one host. */
const IPV4_CANDIDATES = [
  ...range(256).map((third) => `172.27.${(third + 90) % 256}.0/24`),
  ...range(256).map((third) => `10.231.${third}.0/24`),
  ...range(256).map((third) => `192.168.${255 - third}.0/24`),
];
const IPV6_CANDIDATES = range(256).map((fourth) => `fd77:6566:74de:${fourth.toString(16)}::/64`);

/**
 * The first candidate that overlaps no route of the host and holds no address that must stay reachable.
 * @param routes destinations of the host's routes; the default route and what is no CIDR do not count
 * @param reserved addresses that the host talks to: its own, its name servers
 */
export function chooseSubnet(
  family: 'ipv4' | 'ipv6',
  routes: readonly string[],
  reserved: readonly string[],
): string {
  const taken = routes.map(asCidr).filter((cidr) => cidr !== undefined && cidr.prefix > 0) as Cidr[];
  const addresses = reserved.map(parseAddress).filter((address) => address !== undefined);
  const candidates = (family === 'ipv4' ? IPV4_CANDIDATES : IPV6_CANDIDATES).map(
    (text) => parseCidr(text) as Cidr,
  );
  const free = candidates.find(
    (candidate) =>
      !taken.some((other) => overlaps(candidate, other)) &&
      !addresses.some((address) => containsAddress(candidate, address)),
  );
  if (free !== undefined) return formatCidr(free);
  throw new CniError(
    CniCode.IoFailure,
    `no ${family} subnet is free for the example: every candidate overlaps a route of this host`,
    {
      details: 'look at them with: ip route show table all',
    },
  );
}

/** The address that host-local leaves to the bridge: the first of the subnet. */
export function gatewayOf(subnet: string): string {
  const cidr = parseCidr(subnet);
  const gateway = cidr === undefined ? undefined : nextAddress(firstAddress(cidr));
  if (gateway === undefined) throw new TypeError(`"${subnet}" is no subnet`);
  return formatAddress(gateway);
}

function asCidr(text: string): Cidr | undefined {
  if (text.includes('/')) return parseCidr(text);
  const address = parseAddress(text);
  return address === undefined ? undefined : { address, prefix: address.family === 'ipv4' ? 32 : 128 };
}

function range(length: number): number[] {
  return Array.from({ length }, (_, index) => index);
}
