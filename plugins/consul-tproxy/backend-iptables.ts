import { withRollback } from '../../shared/cni/undo.ts';
import { findTools, runTool } from '../../shared/packetfilter/iptables/tools.ts';
import type { Family, PacketFilterDriver, TableState } from '../../shared/packetfilter/ruleset.ts';
import { applyWherePossible, chooseDriver } from '../../shared/packetfilter/select.ts';
import type { Backend } from './backend.ts';
import { CHAINS_OF } from './names.ts';
import { legacyTableNames, presentNftTables, type TableKey } from './table-names.ts';
import type { TablePlan } from './plan.ts';
import type { Launcher } from './launcher.ts';
import { chainsLookedAt, emptyTable, holdsOurs, replaceTable } from './table-change.ts';

export interface IptablesBackendOptions {
  /** Undefined: that of the host's `iptables`. */
  readonly variant?: 'nft' | 'legacy';
  /** Both when left out. */
  readonly families?: readonly Family[];
  /** Asked at the first table that is looked at. */
  readonly launcher: Launcher;
  /** As in Launchers. */
  readonly onlyPrograms?: boolean;
  readonly warn: (line: string) => void;
}

/** The rules in iptables' own tables, one transaction for each table that changes. */
export function iptablesBackend(options: IptablesBackendOptions): Backend {
  const own = new IptablesTables(options);
  return {
    get name() {
      return own.name;
    },
    apply: (tables) => own.apply(tables),
    remove: () => own.empty(own.inUse()),
    read: () => own.inUse().map((key) => own.read(key)),
    present: () => own.inUse().some((key) => holdsOurs(own.read(key))),
    listing: () => own.listing(),
  };
}

/** In the order of removal. */
const TABLES: readonly TableKey[] = [
  ['ipv6', 'filter'],
  ['ipv6', 'nat'],
  ['ipv4', 'filter'],
  ['ipv4', 'nat'],
];

const LISTING_TIMEOUT_MS = 10_000;

class IptablesTables {
  readonly #options: IptablesBackendOptions;
  #driver: PacketFilterDriver | undefined;

  constructor(options: IptablesBackendOptions) {
    this.#options = options;
  }

  get name(): string {
    return this.#choose([]).name;
  }

  get driver(): PacketFilterDriver {
    this.#driver ??= this.#choose(this.#options.launcher());
    return this.#driver;
  }

  read([family, table]: TableKey): TableState {
    return this.driver.read(family, table, chainsLookedAt(table));
  }

  #choose(launcher: readonly string[]): PacketFilterDriver {
    const { variant, onlyPrograms = false } = this.#options;
    return chooseDriver({
      where: 'container',
      onlyPrograms,
      ...(launcher.length === 0 ? {} : { commandPrefix: launcher }),
      ...(variant === undefined ? {} : { variant }),
    });
  }

  /**
   * No table is written before the IPv4 nat table, nor emptied after it, so whether it held something of ours tells whether a failure may
   * take all away.
   * It tells nothing of the other tables: somebody may have emptied it alone (`iptables -t nat -F; iptables -t nat -X`).
   */
  apply(tables: readonly TablePlan[]): boolean {
    const { warn } = this.#options;
    const isFirst = (plan: TablePlan): boolean => isTable(plan, ['ipv4', 'nat']);
    return withRollback(warn, (undo) => {
      let fresh = true;
      let seen = false;
      const look = (state: TableState): void => {
        fresh = !holdsOurs(state);
        seen = true;
      };
      undo.push('the transparent-proxy rules', () => {
        if (seen && fresh) this.empty(TABLES);
      });
      const inOrder = [...tables.filter(isFirst), ...tables.filter((plan) => !isFirst(plan))];
      this.driver.apply(inOrder.map((plan) => replaceTable(plan, isFirst(plan) ? look : undefined)));
      this.empty(this.inUse(TABLES.filter((key) => !tables.some((plan) => isTable(plan, key)))));
      return fresh;
    });
  }

  empty(keys: readonly TableKey[]): void {
    if (keys.length === 0) return;
    const changes = keys.map(([family, table]) => emptyTable(family, table));
    applyWherePossible(this.driver, changes, this.#options.warn);
  }

  /** Those tables that exist: looking at one that does not makes it. Programs are searched for only where there is one to look at. */
  inUse(among: readonly TableKey[] = TABLES): TableKey[] {
    const { variant: wanted, families = ['ipv6', 'ipv4'] } = this.#options;
    const variants = new Map(families.map((family) => [family, wanted ?? findTools(family)?.variant]));
    const inNft = presentNftTables(among.filter(([family]) => variants.get(family) === 'nft'));
    const inLegacy = families.flatMap((family) =>
      variants.get(family) === 'legacy' ? legacyTableNames(family).map((name) => `${family} ${name}`) : [],
    );
    const present = among.filter((key) => inNft.includes(key) || inLegacy.includes(key.join(' ')));
    return present.filter(([family]) => findTools(family, wanted) !== undefined);
  }

  /** Only what concerns us: the namespace may hold rules of others. */
  listing(): string {
    const { variant, launcher } = this.#options;
    const options = { where: 'container', timeoutMs: LISTING_TIMEOUT_MS, commandPrefix: launcher() } as const;
    const ours = this.inUse().filter((key) => holdsOurs(this.read(key)));
    const lines = ours.reverse().flatMap(([family, table]) => {
      const tools = findTools(family, variant);
      const saved = tools === undefined ? '' : runTool(tools.save, ['-c', '-t', table], options).stdout;
      return [
        `# ${family} ${table}`,
        ...saved.split('\n').filter((line) => isRuleOf(line, CHAINS_OF[table])),
      ];
    });
    return lines.map((line) => `${line}\n`).join('');
  }
}

function isTable(plan: TablePlan, [family, table]: TableKey): boolean {
  return plan.family === family && plan.table === table;
}

/** Lines of iptables-save -c: `[packets:bytes] -A CHAIN …` of our chains, or jumping to one. */
function isRuleOf(line: string, chains: readonly string[]): boolean {
  const words = line.split(' ');
  return line.startsWith('[') && chains.some((chain) => words.includes(chain));
}
