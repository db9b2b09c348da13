import { readFileSync } from 'node:fs';
import { formatAddress, isGlobalUnicast, parseAddress, parseCidr } from '../../shared/net/address.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { CniResult } from '../../shared/cni/types.ts';
import { isErrno } from '../../shared/kernel/errno.ts';
import { findTools } from '../../shared/packetfilter/iptables/tools.ts';
import type { TproxyOptions } from './options.ts';
import { backendName } from './place.ts';
import type { TablePlan } from './plan.ts';

/**
 * The part of a plan that this host can hold, for the namespace that this thread is in: without the IPv6 rules where the kernel has no
 * IPv6, or iptables shall hold them and there is no ip6tables.
 */
export function feasible(tables: readonly TablePlan[], options: TproxyOptions): readonly TablePlan[] {
  const possible = ipv6Addresses() !== undefined && !lacksIp6tables(options);
  return possible ? tables : tables.filter(({ family }) => family === 'ipv4');
}

/**
 * An allocation whose IPv6 traffic would go around the proxy does not start. On a host without ip6tables that is one with a global IPv6
 * address, or for which somebody asked for more than refusals; any other one starts, and the log says what is missing.
 * @param tables the whole plan
 * @param result what the plugins before us made of the network
 */
export function demandIpv6(
  tables: readonly TablePlan[],
  options: TproxyOptions,
  result: CniResult | undefined,
  warn: (line: string) => void,
): void {
  const wanted = tables.filter(({ family }) => family === 'ipv6');
  const addresses = wanted.length > 0 && lacksIp6tables(options) ? ipv6Addresses() : undefined;
  if (addresses === undefined) return;
  const address = globalIpv6(result, addresses);
  if (address === undefined && wanted.every(({ table }) => table === 'filter')) {
    warn(
      'this host has no ip6tables: should the allocation get an IPv6 address later, its IPv6 traffic would go around the proxy',
    );
    return;
  }
  const reason =
    address === undefined
      ? 'the job or the configuration asks for it'
      : `the allocation has the address ${address}`;
  throw new CniError(CniCode.Internal, `IPv6 rules are needed (${reason}), but this host has no ip6tables`, {
    details:
      'install ip6tables, set "backend": "nftables", or let IPv6 go around the proxy with "ipv6": "bypass"',
  });
}

function lacksIp6tables({ backend }: TproxyOptions): boolean {
  return backendName(backend) === 'iptables' && findTools('ipv6') === undefined;
}

/** Addresses on the namespace's interfaces; undefined when the kernel has no IPv6. */
function ipv6Addresses(): string[] | undefined {
  try {
    // Each line: address as 32 hex digits, index, prefix length, scope, flags, device.
    const lines = readFileSync('/proc/thread-self/net/if_inet6', 'latin1').split('\n');
    return lines
      .map((line) => (line.split(/\s+/)[0] ?? '').replaceAll(/(.{4})(?!$)/g, '$1:'))
      .filter((text) => text !== '');
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT')) return undefined;
    throw thrown;
  }
}

function globalIpv6(result: CniResult | undefined, present: readonly string[]): string | undefined {
  const told = (result?.ips ?? []).map(({ address }) => parseCidr(address)?.address);
  const found = [...told, ...present.map(parseAddress)].find(
    (address) => address?.family === 'ipv6' && isGlobalUnicast(address),
  );
  return found === undefined ? undefined : formatAddress(found);
}
