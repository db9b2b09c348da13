import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { runAll, withRollback } from '../../shared/cni/undo.ts';
import { isErrno } from '../../shared/kernel/errno.ts';
import { readKernelFile } from '../../shared/kernel/files.ts';
import { formatAddress, isGlobalUnicast, parseAddress, parseCidr } from '../../shared/net/address.ts';
import { canDrive, findTools } from '../../shared/packetfilter/iptables/tools.ts';
import { chooseBackend } from '../../shared/packetfilter/select.ts';
import { legacyTablesInUse } from '../../shared/packetfilter/tables-in-use.ts';
import type { Backend } from './backend.ts';
import type { TproxyOptions } from './config.ts';
import { iptablesBackend } from './iptables/backend.ts';
import { withCommandPrefixes } from './iptables/command-prefix.ts';
import { nftablesBackend } from './nftables/backend.ts';
import type { TablePlan } from './plan.ts';

/** The back ends of this host for one allocation. */
export interface Backends {
  readonly chosen: Backend;
  /** Those that may hold rules of an earlier choice, or of a consul-cni on another variant of iptables. */
  readonly others: readonly Backend[];
}

/** Runs `work`, inside the allocation's namespace, with the back ends of this host. */
export function withBackends<T>(
  choice: TproxyOptions['backend'],
  warn: (line: string) => void,
  work: (backends: Backends) => T,
): T {
  return withCommandPrefixes((prefixes) => {
    const variants = FAMILIES.map((family) => findTools(family)?.variant);
    const { onlyPrograms } = prefixes;
    const iptables = iptablesBackend({
      commandPrefix: prefixes[variants.includes('legacy') ? 'legacy' : 'nft'],
      onlyPrograms,
      warn,
    });
    const nftables = nftablesBackend();
    // A host may have one variant for IPv4 and the other for IPv6.
    const otherVariants = (['nft', 'legacy'] as const).flatMap((variant) => {
      const families = FAMILIES.filter(
        (family, at) =>
          variants[at] !== variant &&
          // Without tables there is no need to search its programs.
          (variant === 'nft' || legacyTablesInUse(family)?.length !== 0) &&
          canDrive(family, variant),
      );
      return families.length === 0
        ? []
        : [iptablesBackend({ commandPrefix: prefixes[variant], onlyPrograms, warn, variant, families })];
    });
    const known = [iptables, ...otherVariants, nftables];
    const chosen = backendName(choice) === 'nftables' ? nftables : iptables;
    return work({ chosen, others: known.filter((backend) => backend !== chosen) });
  });
}

/** In the order of removal. */
const FAMILIES = ['ipv6', 'ipv4'] as const;

/** The node's `tproxy.backend` is part of `choice`; its `backend` is that of the host's tables. */
export function backendName(choice: TproxyOptions['backend']): 'iptables' | 'nftables' {
  return chooseBackend(choice, {});
}

/**
 * Adds the rules to the chosen back end, then removes those that other back ends hold, so that the namespace has rules at every moment. Both
 * at once do no harm, because a connection is redirected once.
 */
export function addRules(
  { chosen, others }: Backends,
  tables: readonly TablePlan[],
  warn: (line: string) => void,
): void {
  withRollback(warn, (undo) => {
    const wasEmpty = chosen.add(tables);
    if (wasEmpty) undo.push(`the rules in ${chosen.name}`, () => chosen.remove());
    for (const other of others) if (other.present()) other.remove();
  });
}

/** Removes the rules of every back end; each is tried. */
export function removeRules({ chosen, others }: Backends, warn: (line: string) => void): void {
  runAll(
    [chosen, ...others].map((backend) => () => backend.remove()),
    warn,
  );
}

/**
 * The part of a plan that this host can hold, for the namespace that this thread is in: without the IPv6 rules where the kernel has no IPv6, or
 * where the back end is iptables and ip6tables is missing.
 */
export function supportedTables(tables: readonly TablePlan[], options: TproxyOptions): readonly TablePlan[] {
  const hasIpv6 = ipv6Addresses() !== undefined && !lacksIp6tables(options);
  return hasIpv6 ? tables : tables.filter(({ family }) => family === 'ipv4');
}

/**
 * Refuses an allocation whose IPv6 traffic would bypass the proxy because ip6tables is missing: one with a global IPv6 address, or with IPv6
 * rules that the job or the configuration asks for. Any other allocation starts, with a warning.
 * @param tables the complete plan
 * @throws CniError 999
 */
export function requireIpv6Support(
  tables: readonly TablePlan[],
  options: TproxyOptions,
  prevResult: CniResult | undefined,
  warn: (line: string) => void,
): void {
  const wanted = tables.filter(({ family }) => family === 'ipv6');
  const addresses = wanted.length > 0 && lacksIp6tables(options) ? ipv6Addresses() : undefined;
  if (addresses === undefined) return;
  const address = globalIpv6(prevResult, addresses);
  if (address === undefined && wanted.every(({ table }) => table === 'filter')) {
    warn(
      'this host has no ip6tables: if the allocation gets an IPv6 address, its IPv6 traffic bypasses the proxy',
    );
    return;
  }
  const reason =
    address === undefined
      ? 'the job or the configuration asks for them'
      : `the allocation has the address ${address}`;
  throw new CniError(CniCode.Internal, `this host has no ip6tables, needed for IPv6 rules (${reason})`, {
    details:
      'install ip6tables, set "backend": "nftables", or let IPv6 bypass the proxy with "ipv6": "bypass"',
  });
}

function lacksIp6tables({ backend }: TproxyOptions): boolean {
  return backendName(backend) === 'iptables' && findTools('ipv6') === undefined;
}

/** Addresses of the namespace's interfaces; undefined when the kernel has no IPv6. */
function ipv6Addresses(): string[] | undefined {
  try {
    // Each line: address as 32 hex digits, index, prefix length, scope, flags, device.
    const lines = readKernelFile('/proc/thread-self/net/if_inet6').split('\n');
    return lines
      .map((line) => (line.split(/\s+/)[0] ?? '').replaceAll(/(.{4})(?!$)/g, '$1:'))
      .filter((text) => text !== '');
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT')) return undefined;
    throw thrown;
  }
}

function globalIpv6(prevResult: CniResult | undefined, present: readonly string[]): string | undefined {
  const reported = (prevResult?.ips ?? []).map(({ address }) => parseCidr(address)?.address);
  const found = [...reported, ...present.map(parseAddress)].find(
    (address) => address?.family === 'ipv6' && isGlobalUnicast(address),
  );
  return found === undefined ? undefined : formatAddress(found);
}
