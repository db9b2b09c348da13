import type { Family, PacketFilterDriver, PlannedChange, TableChange } from './ruleset.ts';
import { CniCode, CniError } from '../cni/errors.ts';
import { runAll } from '../cni/undo.ts';
import { createIptablesDriver } from './iptables/driver.ts';
import { findTools } from './iptables/tools.ts';
import { createIptablesNftDriver } from './iptables-nft/driver.ts';

export interface DriverOptions {
  /**
   * `host`: the host's own tables; with iptables-legacy the host-wide xtables lock is taken, as every other iptables command does.
   * `container`: for use inside `inNamespace(...)`: the tables of a namespace that nobody else writes; the host-wide lock is
   * left alone, so that a busy or hung iptables on the host cannot delay a container.
   */
  readonly where?: 'host' | 'container';
  /** Longest wait for locks, of ours and of iptables, in milliseconds (default 60 000). */
  readonly timeoutMs?: number;
  /** The tables of this variant of iptables; that of the host's `iptables` when left out. */
  readonly variant?: 'nft' | 'legacy';
  /** Rules may hold words of an operator's that only iptables itself can read: always through its programs then. */
  readonly words?: boolean;
  /** Words put before every program that is run. */
  readonly launcher?: readonly string[];
  /** Nothing in process: in a network namespace of another user namespace, which a child enters by its `launcher`. */
  readonly onlyPrograms?: boolean;
}

/**
 * The driver that makes iptables' tables match a ruleset on this host: straight over netlink where the host's iptables is the
 * nf_tables variant, as a whole table each where it is the legacy one; through the programs where it cannot be in process.
 * Looks at nothing until it is used: which variant a family has is found out at the first read or apply.
 */
export function chooseDriver(options: DriverOptions = {}): PacketFilterDriver {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const programs = createIptablesDriver({ ...options, where: options.where ?? 'host', timeoutMs });
  if (options.onlyPrograms === true || options.words === true) return programs;
  const netlink = createIptablesNftDriver({ timeoutMs, withWords: programs, supports: programs.supports });
  const driverOf = (family: Family): PacketFilterDriver =>
    findTools(family, options.variant)?.variant === 'nft' ? netlink : programs;
  return {
    get name() {
      return programs.name;
    },
    supports: programs.supports,
    read: (family, table, looksAt) => driverOf(family).read(family, table, looksAt),
    apply: (changes) => {
      for (const [driver, own] of Map.groupBy(changes, ({ family }) => driverOf(family))) driver.apply(own);
    },
  };
}

/**
 * Applies changes that only take away, in the families that this host can drive: where there is no ip6tables, there is
 * nothing to take away. All at once; where that fails, every family is tried by itself, and the first error is thrown at the end.
 */
export function applyWherePossible(
  driver: PacketFilterDriver,
  changes: readonly (TableChange | PlannedChange)[],
  warn: (line: string) => void,
): void {
  const byFamily = Map.groupBy(changes, ({ family }) => family);
  const possible = [...byFamily].flatMap(([family, own]) => (driver.supports(family) ? [own] : []));
  try {
    driver.apply(possible.flat());
  } catch (thrown) {
    // A lock that is held is held for each.
    if (possible.length < 2 || (thrown instanceof CniError && thrown.code === CniCode.TryAgainLater))
      throw thrown;
    runAll(
      possible.map((own) => () => driver.apply(own)),
      warn,
    );
  }
}

/** 40 first ADDs at once on two busy cores were seen to wait up to 25 s for each other. */
const DEFAULT_TIMEOUT_MS = 60_000;
