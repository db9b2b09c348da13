import type { Listing } from '../../kernel/netlink/listing.ts';
import { attributeOf, textOf } from '../nftables/tree.ts';
import type { Family, PortRange, Rule } from '../ruleset.ts';
import type { Rules } from '../rules.ts';
import { handleOf, KernelRule } from './kernel-rule.ts';
import { bestNeedle, chainNeedle, messagesOf, messagesWith } from './needles.ts';
import { PortSearch } from './port-lists.ts';

export interface ChainSource {
  readonly family: Family;
  readonly chain: string;
  /** Asks the kernel for the chain's rules; undefined when there are none. */
  readonly open: () => Listing | undefined;
  /** At most so many rules of the table lead to a chain: whoever has found as many need not look on. */
  readonly leadingTo: (chain: string) => number;
}

/**
 * The rules of a chain as they stand in the kernel, asked for when the first question comes and read as far as it needs. A question goes from
 * the bytes that it looks for to the rules around them; only those become objects.
 */
export class ChainRules implements Rules {
  readonly #source: ChainSource;
  /** undefined: not asked for yet; null: there are none. */
  #listing: Listing | null | undefined;
  /** The same object whenever a rule is found again. */
  readonly #found = new Map<bigint, KernelRule>();

  constructor(source: ChainSource) {
    this.#source = source;
  }

  get length(): number {
    return [...this].length;
  }

  /** How many there are, if they are all read already and so few that counting them is nothing. */
  get knownLength(): number {
    const isShort = this.#listing?.complete === true && this.#listing.datagram(1) === undefined;
    return isShort ? this.length : 0;
  }

  [Symbol.iterator](): Iterator<KernelRule> {
    return this.#among(messagesOf);
  }

  mayDo(wanted: Rule): Iterable<KernelRule> {
    const needle = bestNeedle(wanted);
    if (needle === undefined) return this;
    const found = this.#among((datagram) => messagesWith(datagram, needle));
    return wanted.target.kind === 'jump' ? this.#leadingTo(wanted.target.chain, found) : found;
  }

  mayLeadTo(chain: string): Iterable<KernelRule> {
    const needle = chainNeedle(chain);
    return this.#leadingTo(
      chain,
      this.#among((datagram) => messagesWith(datagram, needle)),
    );
  }

  mayBeFor(ports: readonly PortRange[]): Iterable<KernelRule> {
    const search = new PortSearch(ports);
    return this.#among((datagram) => search.in(datagram));
  }

  *#leadingTo(chain: string, some: Iterable<KernelRule>): Generator<KernelRule> {
    let left = this.#source.leadingTo(chain);
    if (left <= 0) return;
    for (const rule of some) {
      if (!rule.leadsTo(chain)) continue;
      yield rule;
      left -= 1;
      if (left === 0) return;
    }
  }

  /** The rules whose messages a search finds, each once, also when the list changed under way and is read anew. */
  *#among(search: (datagram: Buffer) => Iterable<number>): Generator<KernelRule> {
    const listing = this.#open();
    if (listing === undefined) return;
    const given = new Set<KernelRule>();
    let { attempt } = listing;
    for (let index = 0; ; index++) {
      const datagram = listing.datagram(index);
      if (listing.attempt !== attempt) {
        attempt = listing.attempt;
        index = -1;
        continue;
      }
      if (datagram === undefined) return;
      for (const at of search(datagram)) {
        const rule = this.#ruleAt(datagram, at);
        if (rule === undefined || given.has(rule)) continue;
        given.add(rule);
        yield rule;
      }
    }
  }

  #open(): Listing | undefined {
    if (this.#listing === undefined) this.#listing = this.#source.open() ?? null;
    return this.#listing ?? undefined;
  }

  /** @returns undefined for a rule of another chain: kernels that cannot be asked for one list all */
  #ruleAt(datagram: Buffer, at: number): KernelRule | undefined {
    const body = datagram.subarray(at + HEADERS, at + datagram.readUInt32LE(at));
    if (textOf(attributeOf(body, RULE_CHAIN) ?? EMPTY) !== this.#source.chain) return undefined;
    const handle = handleOf(body);
    const rule = this.#found.get(handle) ?? new KernelRule(this.#source.family, body);
    this.#found.set(handle, rule);
    return rule;
  }
}

/** struct nlmsghdr, struct nfgenmsg */
const HEADERS = 16 + 4;
const RULE_CHAIN = 2;
const EMPTY = Buffer.alloc(0);
