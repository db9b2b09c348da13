import { runAll, withRollback } from '../../shared/cni/undo.ts';
import { findTools } from '../../shared/packetfilter/iptables/tools.ts';
import type { Backend } from './backend.ts';
import { iptablesBackend } from './backend-iptables.ts';
import { nftablesBackend } from './backend-nftables.ts';
import { withLaunchers } from './launcher.ts';
import type { TproxyOptions } from './options.ts';
import type { TablePlan } from './plan.ts';

/** The backends of this host as one allocation sees them. */
export interface Backends {
  readonly chosen: Backend;
  /** Where rules of an earlier choice, or of a consul-cni on another variant of iptables, may stand. */
  readonly others: readonly Backend[];
}

/** Runs `work`, inside the allocation's namespace, with the backends of this host. */
export function withBackends<T>(
  choice: TproxyOptions['backend'],
  warn: (line: string) => void,
  work: (backends: Backends) => T,
): T {
  return withLaunchers((launchers) => {
    const variants = FAMILIES.map((family) => findTools(family)?.variant);
    const { onlyPrograms } = launchers;
    const iptables = iptablesBackend({
      launcher: launchers[variants.includes('legacy') ? 'legacy' : 'nft'],
      onlyPrograms,
      warn,
    });
    const nftables = nftablesBackend();
    // A host may have one variant for IPv4 and the other for IPv6.
    const otherVariants = (['nft', 'legacy'] as const).flatMap((variant) => {
      const families = FAMILIES.filter((_, at) => variants[at] !== variant);
      return families.length === 0
        ? []
        : [iptablesBackend({ launcher: launchers[variant], onlyPrograms, warn, variant, families })];
    });
    const known = [iptables, ...otherVariants, nftables];
    const chosen = backendName(choice) === 'nftables' ? nftables : iptables;
    return work({ chosen, others: known.filter((backend) => backend !== chosen) });
  });
}

/** In the order of removal. */
const FAMILIES = ['ipv6', 'ipv4'] as const;

/** iptables where it is installed: it is what consul-cni uses, and what operators look at. */
export function backendName(choice: TproxyOptions['backend']): 'iptables' | 'nftables' {
  return choice ?? (findTools('ipv4') === undefined ? 'nftables' : 'iptables');
}

/**
 * Puts the rules in place and takes away what other backends hold: the new ones first, so that at no moment there are none. Both at once do
 * no harm, because a connection is redirected once.
 */
export function placeRules(
  { chosen, others }: Backends,
  tables: readonly TablePlan[],
  warn: (line: string) => void,
): void {
  withRollback(warn, (undo) => {
    const fresh = chosen.apply(tables);
    if (fresh) undo.push(`the rules in ${chosen.name}`, () => chosen.remove());
    for (const other of others) if (other.present()) other.remove();
  });
}

/** Takes away what any backend holds; each is tried. */
export function removeRules({ chosen, others }: Backends, warn: (line: string) => void): void {
  runAll(
    [chosen, ...others].map((backend) => () => backend.remove()),
    warn,
  );
}
