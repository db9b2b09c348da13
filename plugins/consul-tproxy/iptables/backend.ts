import { withRollback } from '../../../shared/cni/undo.ts';
import { isUnmanaged, jumpOf } from '../../../shared/packetfilter/compare.ts';
import { ruleText } from '../../../shared/packetfilter/iptables/render.ts';
import { findTools, runTool } from '../../../shared/packetfilter/iptables/tools.ts';
import type {
  Family,
  PacketFilterDriver,
  PlannedChange,
  Rule,
  TableName,
  TableState,
  UnmanagedRule,
} from '../../../shared/packetfilter/ruleset.ts';
import { applyWherePossible, chooseDriver } from '../../../shared/packetfilter/select.ts';
import {
  legacyTablesInUse,
  nftTablesInUse,
  type IptablesVariant,
} from '../../../shared/packetfilter/tables-in-use.ts';
import type { Backend } from '../backend.ts';
import { CHAINS_OF, HOOKS_OF } from '../chains.ts';
import type { TablePlan } from '../plan.ts';
import type { CommandPrefix } from './command-prefix.ts';

export interface IptablesBackendOptions {
  /** Undefined: that of the host's `iptables`. */
  readonly variant?: IptablesVariant;
  /** Both when left out. */
  readonly families?: readonly Family[];
  /** Called only when a table is read or written. */
  readonly commandPrefix: CommandPrefix;
  /** As in CommandPrefixes. */
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
    add: (tables) => own.add(tables),
    remove: () => own.empty(own.inUse()),
    read: () => own.inUse().map((key) => own.read(key)),
    present: () => own.inUse().some((key) => holdsOwnChains(own.read(key))),
    listing: () => own.listing(),
  };
}

type TableKey = readonly [Family, TableName];

/** In the order of removal. */
const TABLES: readonly TableKey[] = [
  ['ipv6', 'filter'],
  ['ipv6', 'nat'],
  ['ipv4', 'filter'],
  ['ipv4', 'nat'],
];

class IptablesTables {
  readonly #options: IptablesBackendOptions;
  #driver: PacketFilterDriver | undefined;

  constructor(options: IptablesBackendOptions) {
    this.#options = options;
  }

  get name(): string {
    const { variant } = this.#options;
    return variant === undefined ? this.#choose([]).name : `iptables-${variant}`;
  }

  get driver(): PacketFilterDriver {
    this.#driver ??= this.#choose(this.#options.commandPrefix());
    return this.#driver;
  }

  get families(): readonly Family[] {
    return this.#options.families ?? ['ipv6', 'ipv4'];
  }

  read([family, table]: TableKey): TableState {
    return this.driver.read(family, table, chainsOfInterest(table));
  }

  #choose(prefix: readonly string[]): PacketFilterDriver {
    const { variant, onlyPrograms = false } = this.#options;
    const { name, read, apply, supports } = chooseDriver({
      where: 'container',
      onlyPrograms,
      ...(prefix.length === 0 ? {} : { commandPrefix: prefix }),
      ...(variant === undefined ? {} : { variant }),
    });
    const withoutPrograms = variant === 'nft' && !onlyPrograms;
    return { name, read, apply, supports: (family) => withoutPrograms || supports(family) };
  }

  /**
   * The IPv4 nat table is written first and emptied last, so its state decides whether a failure may remove everything. It says nothing about
   * the other tables: a user may have emptied it alone (`iptables -t nat -F; iptables -t nat -X`).
   */
  add(tables: readonly TablePlan[]): boolean {
    const { warn } = this.#options;
    const isFirst = (plan: TablePlan): boolean => isTable(plan, ['ipv4', 'nat']);
    return withRollback(warn, (undo) => {
      let wasEmpty = true;
      let wasRead = false;
      const inspect = (state: TableState): void => {
        wasEmpty = !holdsOwnChains(state);
        wasRead = true;
      };
      undo.push('the transparent-proxy rules', () => {
        if (wasRead && wasEmpty) this.empty(TABLES);
      });
      const inOrder = [...tables.filter(isFirst), ...tables.filter((plan) => !isFirst(plan))];
      this.driver.apply(inOrder.map((plan) => replaceTable(plan, isFirst(plan) ? inspect : undefined)));
      this.empty(this.inUse(TABLES.filter((key) => !tables.some((plan) => isTable(plan, key)))));
      return wasEmpty;
    });
  }

  empty(keys: readonly TableKey[]): void {
    if (keys.length === 0) return;
    const changes = keys.map(([family, table]) => emptyTable(family, table));
    applyWherePossible(this.driver, changes, this.#options.warn);
  }

  /** The tables that exist: reading one that does not would create it. */
  inUse(among: readonly TableKey[] = TABLES): TableKey[] {
    const variantOf = (family: Family): IptablesVariant | undefined => {
      const { variant, onlyPrograms = false } = this.#options;
      const tools = findTools(family, variant);
      return onlyPrograms ? tools?.variant : (variant ?? tools?.variant);
    };
    const ofFamilies = among.filter(([family]) => this.families.includes(family));
    const nft = ofFamilies.filter(([family]) => variantOf(family) === 'nft');
    const legacy = ofFamilies.filter(([family]) => variantOf(family) === 'legacy');
    const nftInUse = nftTablesInUse(nft.map(([family, name]) => ({ family: NFT_FAMILIES[family], name })));
    const isInUse = ([family, table]: TableKey): boolean =>
      nftInUse.some(({ family: nftFamily, name }) => nftFamily === NFT_FAMILIES[family] && name === table);
    return [
      ...nft.filter(isInUse),
      // In a user namespace the kernel may not tell; the host's own variant is read then.
      ...legacy.filter(
        ([family, table]) =>
          legacyTablesInUse(family)?.includes(table) ?? this.#options.variant === undefined,
      ),
    ];
  }

  /** Only the plugin's rules: the namespace may hold others. */
  listing(): string {
    const own = this.inUse().filter((key) => holdsOwnChains(this.read(key)));
    const lines = own.reverse().flatMap((key) => [`# ${key.join(' ')}`, ...this.#ruleLines(key)]);
    return lines.map((line) => `${line}\n`).join('');
  }

  /** With counters, as iptables-save prints them; without where the host has no programs of this variant. */
  #ruleLines(key: TableKey): string[] {
    const [family, table] = key;
    const { variant, commandPrefix } = this.#options;
    const tools = findTools(family, variant);
    if (tools === undefined) {
      return [...this.read(key).chains].flatMap(([chain, rules]) =>
        rules
          .filter((rule) => isRelated(table, chain, rule))
          .map((rule) => `-A ${chain} ${isUnmanaged(rule) ? rule.unmanaged : ruleText(rule)}`),
      );
    }
    const options = {
      where: 'container',
      commandPrefix: commandPrefix(),
    } as const;
    const { stdout } = runTool(tools.save, ['-c', '-t', table], options);
    return stdout.split('\n').filter((line) => isRuleOf(line, CHAINS_OF[table]));
  }
}

const NFT_FAMILIES = { ipv4: 'ip', ipv6: 'ip6' } as const;

/** Whether the rule is in a chain of the plugin, or jumps to one. */
function isRelated(table: TableName, chain: string, rule: Rule | UnmanagedRule): boolean {
  const own: readonly string[] = CHAINS_OF[table];
  return own.includes(chain) || own.includes(jumpOf(rule) ?? '');
}

function isTable(plan: TablePlan, [family, table]: TableKey): boolean {
  return plan.family === family && plan.table === table;
}

/** Lines of iptables-save -c: `[packets:bytes] -A CHAIN …` of the plugin's chains, or with a jump to one. */
function isRuleOf(line: string, chains: readonly string[]): boolean {
  const parts = line.split(' ');
  return line.startsWith('[') && chains.some((chain) => parts.includes(chain));
}

/** The plugin's chains and the built-in ones with jumps to them. */
function chainsOfInterest(table: TableName): readonly string[] {
  return [...CHAINS_OF[table], ...HOOKS_OF[table]];
}

function holdsOwnChains(state: Pick<TableState, 'table' | 'chains'>): boolean {
  return CHAINS_OF[state.table].some((chain) => state.chains.has(chain));
}

/** Removes the plugin's chains and jumps from one table. */
function emptyTable(family: Family, table: TableName): PlannedChange {
  return replaceTable({ family, table, chains: [], hooks: [] });
}

type Change = ReturnType<PlannedChange['plan']>;

/**
 * Makes one table hold exactly this plan, whatever it holds. Where jumps differ in number or order (an earlier ADD, a consul-cni that ran
 * twice), all are replaced: the jump for DNS over TCP must precede the proxy's.
 * @param inspect called with the table as it was read
 */
function replaceTable(
  plan: TablePlan,
  inspect: (state: TableState) => void = () => undefined,
): PlannedChange {
  const { family, table } = plan;
  const wanted = plan.chains.map(({ chain }) => chain);
  const unwanted = CHAINS_OF[table].filter((chain) => !wanted.includes(chain));
  return {
    family,
    table,
    reads: chainsOfInterest(table),
    plan: (state) => {
      inspect(state);
      const hooks = HOOKS_OF[table].map((hook) => {
        const rules = plan.hooks.find(({ chain }) => chain === hook)?.rules ?? [];
        return hookChange(state, table, hook, rules);
      });
      return {
        setChains: plan.chains,
        removeRules: hooks.flatMap(({ removeRules = [] }) => removeRules),
        setJumps: hooks.flatMap(({ setJumps = [] }) => setJumps),
        ensureRules: hooks.flatMap(({ ensureRules = [] }) => ensureRules),
        deleteChains: unwanted,
      };
    },
  };
}

/** nat: at the end, as consul-cni does. filter: at the head, so that no earlier rule accepts what must be refused. */
function hookChange(state: TableState, table: TableName, hook: string, rules: readonly Rule[]): Change {
  const own: readonly string[] = CHAINS_OF[table];
  if (hasExactJumps(state, own, hook, rules)) return {};
  const isOwn = (rule: Rule): boolean => own.includes(jumpOf(rule) ?? '');
  const atTheEnd = table === 'nat' ? rules : [];
  const atTheHead = table === 'filter' ? [...rules].reverse() : [];
  return {
    removeRules: [{ chain: hook, match: isOwn }],
    // In the order wanted; then the other chains, to remove jumps with conditions that cannot be read.
    setJumps: [...new Set([...atTheEnd.map((rule) => jumpOf(rule) ?? ''), ...own])].map((to) => ({
      chain: hook,
      to,
      rules: atTheEnd.filter((rule) => jumpOf(rule) === to),
    })),
    ensureRules: atTheHead.map((rule) => ({ chain: hook, rule, at: 'first' })),
  };
}

function hasExactJumps(
  state: TableState,
  own: readonly string[],
  hook: string,
  rules: readonly Rule[],
): boolean {
  if (own.some((to) => state.jumps(hook, to).some(isUnmanaged))) return false;
  const jumps = (state.chains.get(hook) ?? []).filter((rule) => own.includes(jumpOf(rule) ?? ''));
  if (jumps.length !== rules.length) return false;
  return jumps.every((rule, at) => {
    const wanted = rules[at];
    return wanted !== undefined && !isUnmanaged(rule) && ruleText(rule) === ruleText(wanted);
  });
}
