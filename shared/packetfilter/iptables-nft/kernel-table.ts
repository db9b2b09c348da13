/**
 * A table of iptables-nft in the kernel, read chain by chain on first use: with ten thousand allocations, a change needs a few chains.
 */
import type { NftConnection } from '../nftables/connection.ts';
import { Message, request } from '../nftables/messages.ts';
import type { NftTable } from '../nftables/model.ts';
import { attributeOf, textOf } from '../nftables/nlattr.ts';
import type { Family, TableName } from '../ruleset.ts';
import { LazyMap, type Table } from '../table.ts';
import { ChainRules, rulesByChain, type RuleList } from './chain-rules.ts';

export const NFT_FAMILIES = { ipv4: 'ip', ipv6: 'ip6' } as const;

/**
 * @param named chains that are needed in any case: requested together on first use
 * @returns a table whose chains are read on first use; consistent if the commit checks the generation
 */
export function kernelTable(
  connection: NftConnection,
  family: Family,
  table: TableName,
  named: readonly string[] = [],
): Table {
  const chains = new KernelChains(connection, family, { family: NFT_FAMILIES[family], name: table }, named);
  return { family, table, chains, holders: (chain) => chains.holders(chain) };
}

class KernelChains extends LazyMap<ChainRules> {
  readonly #connection: NftConnection;
  readonly #family: Family;
  readonly #table: NftTable;
  /** undefined: does not exist. */
  readonly #known = new Map<string, ChainRules | undefined>();
  /** NFTA_CHAIN_USE; undefined: does not exist. */
  readonly #uses = new Map<string, number | undefined>();
  readonly #named: readonly string[];
  #names: ReadonlySet<string> | undefined;
  /** If most of the table is needed. */
  #all: ReadonlyMap<string, RuleList> | undefined;

  constructor(connection: NftConnection, family: Family, table: NftTable, named: readonly string[]) {
    super();
    this.#connection = connection;
    this.#family = family;
    this.#table = table;
    this.#named = named;
  }

  has(chain: string): boolean {
    if (this.#known.has(chain)) return this.#known.get(chain) !== undefined;
    if (this.#isWhole()) this.keys();
    return this.#names?.has(chain) ?? this.#usesOf(chain) !== undefined;
  }

  get(chain: string): ChainRules | undefined {
    if (!this.#known.has(chain)) this.#known.set(chain, this.has(chain) ? this.#rulesOf(chain) : undefined);
    return this.#known.get(chain);
  }

  keys(): MapIterator<string> {
    this.#names ??= new Set(
      this.#connection
        .dump('list chains', Message.getChain, this.#table.family, [])
        .filter((body) => textOf(attributeOf(body, CHAIN_TABLE) ?? EMPTY) === this.#table.name)
        .map((body) => textOf(attributeOf(body, CHAIN_NAME) ?? EMPTY)),
    );
    return this.#names.values();
  }

  /** Whether to list all rules together. */
  #isWhole(): boolean {
    return this.#named.length > MOST_SINGLE_CHAINS;
  }

  /**
   * The chains with rules that jump to `chain`. The kernel counts a chain's uses (its own rules and the jumps to it), so the search ends when
   * all jumps are found; it begins with the chains that nearly always have them.
   */
  holders(chain: string): readonly string[] {
    let left = (this.#usesOf(chain) ?? 0) - (this.get(chain)?.length ?? 0);
    const holders: string[] = [];
    const seen = new Set<string>([chain]);
    for (const candidate of this.#likelyFirst()) {
      if (left <= 0) break;
      if (seen.has(candidate)) continue;
      seen.add(candidate);
      const jumps = [...(this.get(candidate)?.mayJumpTo(chain) ?? [])].length;
      if (jumps > 0) holders.push(candidate);
      left -= jumps;
    }
    return holders;
  }

  *#likelyFirst(): Generator<string> {
    yield* this.#named;
    for (const [chain, rules] of [...this.#known]) if (rules !== undefined) yield chain;
    yield* BASE_CHAINS;
    yield* this.keys();
  }

  /** The number of a chain's rules and of jumps to it; undefined if it does not exist. */
  #usesOf(chain: string): number | undefined {
    if (!this.#uses.has(chain)) this.#ask(this.#uses.size === 0 ? new Set([chain, ...this.#named]) : [chain]);
    return this.#uses.get(chain);
  }

  #ask(names: Iterable<string>): void {
    const chains = [...names];
    const { family, name: table } = this.#table;
    const bodies = this.#connection.getAll(
      chains.map((chain) =>
        request(`get chain ${family} ${table} ${chain}`, Message.getChain, 0, family, [
          [CHAIN_TABLE, table],
          [CHAIN_NAME, chain],
        ]),
      ),
    );
    chains.forEach((chain, at) => {
      const body = bodies[at];
      this.#uses.set(chain, body && (attributeOf(body, CHAIN_USE)?.readUInt32BE() ?? 0));
    });
  }

  #rulesOf(chain: string): ChainRules {
    return new ChainRules({
      family: this.#family,
      chain,
      open: () => this.#list(chain),
      jumpingTo: (to) => (this.#usesOf(to) ?? 0) - (this.#known.get(to)?.knownLength ?? 0),
    });
  }

  #list(chain: string): RuleList | undefined {
    if (this.#uses.get(chain) === 0) return undefined;
    const { family, name: table } = this.#table;
    if (this.#isWhole()) return (this.#all ??= this.#listAll()).get(chain);
    return this.#connection.list(`list rules of ${family} ${table} ${chain}`, Message.getRule, family, [
      [RULE_TABLE, table],
      [RULE_CHAIN, chain],
    ]);
  }

  #listAll(): ReadonlyMap<string, RuleList> {
    const { family, name: table } = this.#table;
    const what = `list rules of ${family} ${table}`;
    const list = this.#connection.list(what, Message.getRule, family, [[RULE_TABLE, table]]);
    return list === undefined ? new Map() : rulesByChain(list);
  }
}

/** NFTA_CHAIN_TABLE, _NAME, _USE; NFTA_RULE_TABLE, _CHAIN */
const CHAIN_TABLE = 1;
const CHAIN_NAME = 3;
const CHAIN_USE = 6;
const RULE_TABLE = 1;
const RULE_CHAIN = 2;
const EMPTY = Buffer.alloc(0);
/** More are cheaper with all others: ADD and DEL of a container need a few chains of thousands. */
const MOST_SINGLE_CHAINS = 64;
const BASE_CHAINS = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'];
