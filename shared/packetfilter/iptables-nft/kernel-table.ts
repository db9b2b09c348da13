/**
 * A table of iptables-nft as it stands in the kernel, read chain by chain and only when somebody looks: with ten thousand
 * allocations nobody needs all of it, and a chain that is known not to exist is never jumped to.
 */
import type { Listing } from '../../kernel/netlink/conversation.ts';
import type { NftConnection } from '../nftables/connection.ts';
import { Message, request } from '../nftables/messages.ts';
import type { NftTable } from '../nftables/model.ts';
import { attributeOf, textOf } from '../nftables/nlattr.ts';
import type { Family, TableName } from '../ruleset.ts';
import type { Rules, Table } from '../table.ts';
import { ChainRules } from './chain-rules.ts';

export const NFT_FAMILIES = { ipv4: 'ip', ipv6: 'ip6' } as const;

/**
 * @param named chains that will be looked at: they are asked for together, when the first question comes
 * @returns a table whose chains are read at first sight; consistent if the generation is checked at the commit
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

class KernelChains implements ReadonlyMap<string, Rules> {
  readonly #connection: NftConnection;
  readonly #family: Family;
  readonly #table: NftTable;
  /** undefined: asked for, and not there. */
  readonly #known = new Map<string, ChainRules | undefined>();
  /** NFTA_CHAIN_USE of the chains that were asked for; undefined: not there. */
  readonly #uses = new Map<string, number | undefined>();
  readonly #named: readonly string[];
  #names: readonly string[] | undefined;

  constructor(connection: NftConnection, family: Family, table: NftTable, named: readonly string[]) {
    this.#connection = connection;
    this.#family = family;
    this.#table = table;
    this.#named = named;
  }

  get size(): number {
    return [...this.keys()].length;
  }

  has(chain: string): boolean {
    if (this.#known.has(chain)) return this.#known.get(chain) !== undefined;
    if (this.#names !== undefined) return this.#names.includes(chain);
    return this.#usesOf(chain) !== undefined;
  }

  get(chain: string): ChainRules | undefined {
    if (!this.#known.has(chain)) this.#known.set(chain, this.has(chain) ? this.#rulesOf(chain) : undefined);
    return this.#known.get(chain);
  }

  keys(): MapIterator<string> {
    this.#names ??= this.#connection
      .dump('list chains', Message.getChain, this.#table.family, [])
      .filter((body) => textOf(attributeOf(body, CHAIN_TABLE) ?? EMPTY) === this.#table.name)
      .map((body) => textOf(attributeOf(body, CHAIN_NAME) ?? EMPTY));
    return this.#names.values();
  }

  *entries(): MapIterator<[string, Rules]> {
    for (const chain of this.keys()) yield [chain, this.get(chain) ?? []];
  }

  *values(): MapIterator<Rules> {
    for (const [, rules] of this.entries()) yield rules;
  }

  [Symbol.iterator](): MapIterator<[string, Rules]> {
    return this.entries();
  }

  forEach(visit: (rules: Rules, chain: string, map: ReadonlyMap<string, Rules>) => void): void {
    for (const [chain, rules] of this.entries()) visit(rules, chain, this);
  }

  /**
   * The chains with rules that lead to `chain`. The kernel counts a chain's users, its own rules among them: the search ends
   * when all are found, and begins where they nearly always are.
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

  /** How many rules a chain has, and how many lead to it, in one number; undefined when there is no such chain. */
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

  #list(chain: string): Listing | undefined {
    if (this.#uses.get(chain) === 0) return undefined;
    const { family, name: table } = this.#table;
    return this.#connection.list(`list rules of ${family} ${table} ${chain}`, Message.getRule, family, [
      [RULE_TABLE, table],
      [RULE_CHAIN, chain],
    ]);
  }
}

/** NFTA_CHAIN_TABLE, _NAME, _USE; NFTA_RULE_TABLE, _CHAIN */
const CHAIN_TABLE = 1;
const CHAIN_NAME = 3;
const CHAIN_USE = 6;
const RULE_TABLE = 1;
const RULE_CHAIN = 2;
const EMPTY = Buffer.alloc(0);
const BASE_CHAINS = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'];
