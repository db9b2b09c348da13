import { isErrno } from '../../shared/kernel/libc.ts';
import { readSysctl, replaceSysctl, writeSysctl } from '../../shared/kernel/sysctl.ts';
import { step } from './explain.ts';
import type { AddressFamily } from '../../shared/net/address.ts';

/**
 * A bridge and its ports must not take an IPv6 default route from a container that pretends to be a router. The value 2
 * ("even when forwarding") is an operator's deliberate choice, e.g. on a bridge that has the uplink as a port: it stays.
 */
export function refuseRouterAdvertisements(name: string): void {
  ignoringAbsence(() => replaceSysctl(`net/ipv6/conf/${name}/accept_ra`, '1', '0'));
}

/** For an uplink: the default route that it learned survives that this host becomes a router. */
export function keepTakingRouterAdvertisements(name: string): void {
  ignoringAbsence(() => replaceSysctl(`net/ipv6/conf/${name}/accept_ra`, '1', '2'));
}

/**
 * For a link of ours that containers have as their gateway, before it has a carrier. While its own link-local address is
 * in duplicate address detection, one to two seconds, the kernel asks for no IPv6 neighbour on behalf of others: what the host
 * forwards to a container that has not sent anything yet would wait as long. The link is new, nobody else can have its address.
 */
export function leaveOutDad(name: string): void {
  ignoringAbsence(() => void writeSysctl(`net/ipv6/conf/${name}/accept_dad`, 0));
}

export interface ContainerSysctls {
  readonly ifname: string;
  /** There are IPv6 addresses to come. */
  readonly ipv6: boolean;
  /** Keep duplicate address detection. */
  readonly dad: boolean;
}

/**
 * To be called inside the container's namespace, before its interface goes up. With IPv6 addresses every one of these
 * counts; without, IPv6 may be missing or read-only, and only its link-local address would profit.
 */
export function prepareContainer({ ifname, ipv6, dad }: ContainerSysctls): void {
  const v4 = `net/ipv4/conf/${ifname}`;
  const v6 = `net/ipv6/conf/${ifname}`;
  // Tells neighbours of the address when the link comes up and when its MAC is set, see announce.ts.
  lenient(() => writeSysctl(`${v4}/arp_notify`, 1));
  const needed = ipv6 ? strict : lenient;
  if (ipv6) {
    for (const name of ['lo', ifname]) {
      needed(() => writeSysctl(`net/ipv6/conf/${name}/disable_ipv6`, 0));
      needed(() => writeSysctl(`net/ipv6/conf/${name}/keep_addr_on_down`, 1));
    }
  }
  needed(() => writeSysctl(`${v6}/accept_dad`, dad ? 1 : 0));
  if (dad) needed(() => writeSysctl(`${v6}/enhanced_dad`, 1));
  // A link-local address comes and goes with its MAC: nobody knows it under another. What is announced reaches every port of the bridge.
  if (ipv6) lenient(() => writeSysctl(`${v6}/ndisc_notify`, 1));
}

/** Switches forwarding on, unless it is: writing it walks every interface, and /proc/sys may be read-only where all is well. */
export function enableForwarding(families: readonly AddressFamily[], keepRouterRoutes: () => void): void {
  if (families.includes('ipv4')) step('enable forwarding', () => writeSysctl(IPV4_FORWARDING, 1));
  if (families.includes('ipv6') && readSysctl(IPV6_FORWARDING) !== '1') {
    keepRouterRoutes();
    step('enable forwarding', () => writeSysctl(IPV6_FORWARDING, 1));
  }
}

/** @returns the names of the sysctls that are not as a gateway needs them */
export function missingForwarding(families: readonly AddressFamily[]): string[] {
  const wanted = families.map((family) => (family === 'ipv4' ? IPV4_FORWARDING : IPV6_FORWARDING));
  return wanted.filter((path) => readSysctl(path) !== '1');
}

const IPV4_FORWARDING = 'net/ipv4/ip_forward';
const IPV6_FORWARDING = 'net/ipv6/conf/all/forwarding';

function strict(write: () => unknown): void {
  step('prepare the container for IPv6', write);
}

/** What is nice to have must not fail an ADD where /proc/sys is read-only or the kernel has no IPv6. */
function lenient(write: () => unknown): void {
  try {
    write();
  } catch {
    // As it was, then.
  }
}

function ignoringAbsence(work: () => void): void {
  try {
    work();
  } catch (thrown) {
    if (!isErrno(thrown, 'ENOENT', 'EROFS', 'EACCES', 'EPERM')) throw thrown;
  }
}
