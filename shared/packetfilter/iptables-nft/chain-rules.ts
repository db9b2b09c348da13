import type { Listing } from '../../kernel/netlink/conversation.ts';
import { jumpTarget } from '../nftables/decode-expressions.ts';
import { decodeRule } from './decode-rule.ts';
import {
  PortSearch,
  longestPattern,
  chainPattern,
  isSurelyNotFor,
  messagesOf,
  messagesWith,
  bytePatternsOf,
} from './byte-search.ts';
import { isListedAs, keepListed } from './listed-form.ts';
import { ruleText } from '../iptables/render.ts';
import { attributeOf, textOf } from '../nftables/nlattr.ts';
import type { PortRanges } from '../port-ranges.ts';
import type { Family, UnmanagedRule, Rule } from '../ruleset.ts';
import type { Entry, Rules } from '../table.ts';

/** Rules as the kernel lists them. */
export type RuleList = Pick<Listing, 'attempt' | 'complete' | 'datagram'>;

export interface ChainSource {
  readonly family: Family;
  readonly chain: string;
  /** Asks the kernel for the chain's rules; undefined when there are none. */
  readonly open: () => RuleList | undefined;
  /** At most so many rules of the table jump to a chain: a search ends when it has found as many. */
  readonly jumpingTo: (chain: string) => number;
}

/**
 * The rules of a chain in the kernel, listed on first use and only as far as a search needs. Searches look for bytes (byte-search.ts), and only
 * the rules that contain them become objects.
 */
export class ChainRules implements Rules {
  readonly #source: ChainSource;
  /** undefined: not listed yet; null: there are none. */
  #listing: RuleList | null | undefined;
  /** By handle: a rule that is found again is the same object. */
  readonly #found = new Map<bigint, KernelRule>();

  constructor(source: ChainSource) {
    this.#source = source;
  }

  get length(): number {
    return [...this].length;
  }

  /** Their number if all are read already and fit in one datagram, else 0. */
  get knownLength(): number {
    const isShort = this.#listing?.complete === true && this.#listing.datagram(1) === undefined;
    return isShort ? this.length : 0;
  }

  [Symbol.iterator](): Iterator<KernelRule> {
    return this.#among(messagesOf);
  }

  mayDo(wanted: Rule): Iterable<KernelRule> {
    const pattern = longestPattern(wanted);
    if (pattern === undefined) return this;
    const found = this.#among((datagram) => messagesWith(datagram, pattern));
    return wanted.target.kind === 'jump' ? this.#jumpingTo(wanted.target.chain, found) : found;
  }

  mayJumpTo(chain: string): Iterable<KernelRule> {
    const pattern = chainPattern(chain);
    return this.#jumpingTo(
      chain,
      this.#among((datagram) => messagesWith(datagram, pattern)),
    );
  }

  mayBeFor(ports: PortRanges): Iterable<KernelRule> {
    const search = new PortSearch(ports);
    return this.#among((datagram) => search.in(datagram));
  }

  *#jumpingTo(chain: string, some: Iterable<KernelRule>): Generator<KernelRule> {
    let left = this.#source.jumpingTo(chain);
    if (left <= 0) return;
    for (const rule of some) {
      if (!rule.jumpsTo(chain)) continue;
      yield rule;
      left -= 1;
      if (left === 0) return;
    }
  }

  /** The rules whose messages a search finds, each once, also if the list changes meanwhile and is read again. */
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

  #open(): RuleList | undefined {
    if (this.#listing === undefined) this.#listing = this.#source.open() ?? null;
    return this.#listing ?? undefined;
  }

  /** @returns undefined for a rule of another chain: old kernels list the rules of all chains */
  #ruleAt(datagram: Buffer, at: number): KernelRule | undefined {
    const body = datagram.subarray(at + HEADERS, at + datagram.readUInt32LE(at));
    if (chainOf(body) !== this.#source.chain) return undefined;
    const handle = handleOf(body);
    const rule = this.#found.get(handle) ?? new KernelRule(this.#source.family, body);
    this.#found.set(handle, rule);
    return rule;
  }
}

/**
 * The rules of several chains, by chain: one request for a whole table takes much less time than one for each of a thousand chains.
 * @param list of one table; read completely
 */
export function rulesByChain(list: Listing): ReadonlyMap<string, RuleList> {
  list.readAll();
  const parts = new Map<string, Buffer[]>();
  for (let at = 0, datagram = list.datagram(at); datagram !== undefined; datagram = list.datagram(++at)) {
    let [chain, begin] = ['', 0];
    const end = (to: number): void => {
      if (to > begin) parts.set(chain, [...(parts.get(chain) ?? []), datagram.subarray(begin, to)]);
      begin = to;
    };
    // The kernel lists one chain after the other.
    for (const message of messagesOf(datagram)) {
      const next = chainOf(datagram.subarray(message + HEADERS));
      if (next === chain) continue;
      end(message);
      chain = next;
    }
    end(datagram.length);
  }
  return new Map(
    [...parts].map(([chain, own]) => [chain, { attempt: 1, complete: true, datagram: (at) => own[at] }]),
  );
}

/** @param body NFTA_RULE_* attributes */
function chainOf(body: Buffer): string {
  return textOf(attributeOf(body, RULE_CHAIN) ?? EMPTY);
}

/** struct nlmsghdr, struct nfgenmsg */
const HEADERS = 16 + 4;
const RULE_CHAIN = 2;
const EMPTY = Buffer.alloc(0);

/** A listed rule; decoded only when its bytes do not decide, because a chain may have ten thousand. */
export class KernelRule implements Entry {
  readonly handle: bigint;
  readonly #family: Family;
  readonly #list: Buffer;
  #rule: Rule | UnmanagedRule | undefined;

  /** @param body NFTA_RULE_* attributes, in memory that is not reused */
  constructor(family: Family, body: Buffer) {
    this.#family = family;
    this.handle = handleOf(body);
    this.#list = attributeOf(body, RULE_EXPRESSIONS) ?? Buffer.alloc(0);
  }

  get rule(): Rule | UnmanagedRule {
    this.#rule ??= decodeRule(this.#family, this.#list) ?? {
      unmanaged: `nf_tables rule with handle ${this.handle}`,
    };
    return this.#rule;
  }

  get text(): string {
    const { rule } = this;
    return 'unmanaged' in rule ? rule.unmanaged : ruleText(rule);
  }

  jumpsTo(chain: string): boolean {
    return this.#list.includes(chainPattern(chain)) && jumpTarget(this.#list) === chain;
  }

  isKnownAs(wanted: Rule): boolean {
    return isListedAs(this.#family, wanted, this.#list);
  }

  keepAs(wanted: Rule): void {
    keepListed(this.#family, wanted, this.#list);
  }

  /** Without decoding: false proves nothing. */
  cannotBe(wanted: Rule): boolean {
    return bytePatternsOf(wanted).some((pattern) => !this.#list.includes(pattern));
  }

  cannotBeFor(ports: PortRanges): boolean {
    return isSurelyNotFor(this.#list, ports);
  }
}

/** Unique in a table, deleted rules included. @param body NFTA_RULE_* attributes */
export function handleOf(body: Buffer): bigint {
  return attributeOf(body, RULE_HANDLE)?.readBigUInt64BE() ?? 0n;
}

const RULE_HANDLE = 3;
const RULE_EXPRESSIONS = 4;
