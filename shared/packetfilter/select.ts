import type { Family, PacketFilterDriver, PlannedChange, TableChange } from './ruleset.ts';
import { CniCode, CniError } from '../cni/errors.ts';
import { readNodeConfig, type NodeConfig } from '../config/node-config.ts';
import { runAll } from '../cni/undo.ts';
import { createIptablesDriver } from './iptables/driver.ts';
import { canDrive, findTools } from './iptables/tools.ts';
import { createIptablesNftDriver } from './iptables-nft/driver.ts';
import { variantHasTables, type IptablesVariant } from './tables-in-use.ts';

export type Backend = 'iptables' | 'nftables';

/**
 * The packet filter that rules are written to: that of the network's configuration, else the node's (/etc/weft/weft.json), else iptables where it
 * is installed (Nomad, its clean-up and operators look there), else nf_tables, which needs no program.
 */
export function chooseBackend(explicit: Backend | undefined, node?: NodeConfig): Backend {
  return (
    explicit ??
    (node ?? readNodeConfig()).backend ??
    (findTools('ipv4') === undefined ? 'nftables' : 'iptables')
  );
}

export interface DriverOptions {
  /**
   * `host`: the host's own tables; with iptables-legacy the host-wide xtables lock is taken, as every other iptables command does.
   * `container`: inside `inNamespace(...)`, for a namespace that no other program changes: without the host-wide lock, so that a busy or hung
   * iptables on the host cannot delay a container.
   */
  readonly where?: 'host' | 'container';
  /** Longest wait for the lock of iptables-legacy; default: all that the call has left. */
  readonly timeoutMs?: number;
  /** Default: the variant of the host's `iptables`. */
  readonly variant?: IptablesVariant;
  /** Rules may have raw arguments, which only iptables can parse: always use its programs. */
  readonly rawArgs?: boolean;
  /** Put before every program that is run. */
  readonly commandPrefix?: readonly string[];
  /** Use only the programs: for a network namespace of another user namespace, which a child enters by its `commandPrefix`. */
  readonly onlyPrograms?: boolean;
}

/**
 * The driver of iptables' tables on this host: over netlink where the host's iptables is the nf_tables variant, by its programs where it is the
 * legacy variant. The variant of each family is determined at the first read or apply.
 */
export function chooseDriver(options: DriverOptions = {}): PacketFilterDriver {
  const programs = createIptablesDriver({ ...options, where: options.where ?? 'host' });
  if (options.onlyPrograms === true) return programs;
  const netlink = createIptablesNftDriver(programs);
  const driverOf = (family: Family): PacketFilterDriver => {
    const tools = findTools(family, options.variant);
    if (options.rawArgs === true && tools !== undefined) return programs;
    return (options.variant ?? tools?.variant) === 'nft' ? netlink : programs;
  };
  return {
    get name() {
      return programs.name;
    },
    supports: programs.supports,
    read: (family, table, reads) => driverOf(family).read(family, table, reads),
    apply: (changes) => {
      for (const [driver, own] of Map.groupBy(changes, ({ family }) => driverOf(family))) driver.apply(own);
    },
  };
}

/**
 * Drivers of all variants of iptables that can hold rules in this network namespace: first the host's own (see {@link chooseDriver}),
 * then each other variant that has tables here. Rules are there when the host's `iptables` was switched (update-alternatives, another
 * PATH, a new image) after ADD. The search costs a file per family where the host's iptables is the nf_tables variant, a netlink request
 * per family where it is the legacy one. iptables-legacy's tables are left alone on a host without its programs.
 *
 * - ADD writes with {@link chooseDriver}, and removes an earlier ADD's rules with {@link otherDrivers}.
 * - DEL and GC: {@link removeEverywhere}.
 * - CHECK: {@link missingEverywhere}.
 * - Conflict detection: `for (const driver of driversWithRules()) if (driver.supports(family)) driver.read(family, 'nat')`.
 *
 * A driver answers only for the families that it `supports`.
 */
export function driversWithRules(options: Omit<DriverOptions, 'variant'> = {}): PacketFilterDriver[] {
  return [chooseDriver(options), ...otherDrivers(options)];
}

/** As {@link driversWithRules}, without the driver of the host's own `iptables`; nearly always empty. */
export function otherDrivers(options: Omit<DriverOptions, 'variant'> = {}): PacketFilterDriver[] {
  return (['nft', 'legacy'] as const).flatMap((variant) => {
    const families = (['ipv4', 'ipv6'] as const).filter(
      (family) =>
        findTools(family)?.variant !== variant &&
        variantHasTables(variant, family) &&
        // Searches programs in all of PATH: last.
        canDrive(family, variant),
    );
    if (families.length === 0) return [];
    const { read, apply } = chooseDriver({ ...options, variant });
    return [
      { name: `iptables-${variant}`, read, apply, supports: (family: Family) => families.includes(family) },
    ];
  });
}

/** Applies changes that only remove, wherever rules can be; every driver and family is tried, and the first error is thrown at the end. */
export function removeEverywhere(
  changes: readonly (TableChange | PlannedChange)[],
  warn: (line: string) => void,
  options: Omit<DriverOptions, 'variant'> = {},
): void {
  const drivers = driversWithRules(options);
  runAll(
    drivers.map((driver) => () => applyWherePossible(driver, changes, warn)),
    warn,
  );
}

/**
 * For CHECK of one family: the rules may be complete in either variant.
 * @param look what a driver's tables lack, undefined when complete
 * @returns undefined when the rules are complete somewhere, else what the host's own variant lacks
 * @throws what `look` throws for the host's own variant, when no other one is complete
 */
export function missingEverywhere(
  family: Family,
  look: (driver: PacketFilterDriver) => string | undefined,
  options: Omit<DriverOptions, 'variant'> = {},
): string | undefined {
  let missing: string | undefined;
  let failure: unknown;
  try {
    missing = look(chooseDriver(options));
    if (missing === undefined) return undefined;
  } catch (thrown) {
    failure = thrown;
  }
  const others = otherDrivers(options).filter((driver) => driver.supports(family));
  if (others.some((driver) => look(driver) === undefined)) return undefined;
  if (failure !== undefined) throw failure as Error;
  return missing;
}

/**
 * Applies changes that only remove, in the families that the driver supports. If that fails, each family is tried alone, and the first error is
 * thrown at the end.
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
    // Each family would wait for the same lock.
    if (possible.length < 2 || (thrown instanceof CniError && thrown.code === CniCode.TryAgainLater))
      throw thrown;
    runAll(
      possible.map((own) => () => driver.apply(own)),
      warn,
    );
  }
}
