/**
 * nf_tables of one network namespace in memory. It takes the attributes of the same netlink messages as the kernel, carries out a batch
 * completely or not at all, and refuses what the kernel refuses with the same errno. transaction-cases.ts runs the same cases against both.
 */
import {
  decodeExpressions,
  decodeVerdict,
} from '../../../shared/packetfilter/nftables/decode-expressions.ts';
import { Flag, Message } from '../../../shared/packetfilter/nftables/messages.ts';
import { attributeOf, attributesOf, textOf } from '../../../shared/packetfilter/nftables/nlattr.ts';

export interface FakeTable {
  /** NFPROTO_* */
  readonly family: number;
  readonly name: string;
  readonly userdata: Buffer | undefined;
  readonly chains: Map<string, FakeChain>;
  readonly sets: Map<string, FakeSet>;
  lastHandle: bigint;
}

export interface FakeChain {
  readonly name: string;
  /** NFTA_CHAIN_HOOK { _HOOKNUM, _PRIORITY } of a base chain. */
  readonly hook: Buffer | undefined;
  readonly type: Buffer | undefined;
  readonly policy: Buffer | undefined;
  readonly userdata: Buffer | undefined;
  readonly rules: readonly FakeRule[];
}

export interface FakeRule {
  readonly handle: bigint;
  /** NFTA_RULE_EXPRESSIONS */
  readonly expressions: Buffer;
  readonly compat: Buffer | undefined;
  readonly userdata: Buffer | undefined;
}

export interface FakeSet {
  readonly name: string;
  /** All attributes that it was made with. */
  readonly attributes: Buffer;
  /** By key in hexadecimal, the end of an interval with ` end` behind it; each the payload of an NFTA_LIST_ELEM. */
  readonly elements: ReadonlyMap<string, Buffer>;
}

/** One request of a batch: NFT_MSG_*, NLM_F_*, NFPROTO_*, and the attributes behind struct nfgenmsg. */
export interface BatchRequest {
  readonly message: number;
  readonly flags: number;
  readonly family: number;
  readonly attributes: Buffer;
}

export class FakeNftables {
  #tables: readonly FakeTable[] = [];
  #generation = 1;

  /** Of a new namespace 1; grows with every commit. */
  get generation(): number {
    return this.#generation;
  }

  /** In the order of their creation. */
  get tables(): readonly FakeTable[] {
    return this.#tables;
  }

  table(family: number, name: string): FakeTable | undefined {
    return this.#tables.find((table) => table.family === family && table.name === name);
  }

  flush(): void {
    this.#tables = [];
    this.#generation += 1;
  }

  /**
   * @param generation the batch is valid for this one only; undefined: for any
   * @returns the first request that was refused (-1: the batch itself); undefined when all were carried out
   */
  commit(
    requests: readonly BatchRequest[],
    generation: number | undefined,
  ): { readonly index: number; readonly errno: number } | undefined {
    if (generation !== undefined && generation !== this.#generation)
      return { index: -1, errno: Errno.ERESTART };
    const before = this.#tables;
    this.#tables = before.map(copyOf);
    let index = -1;
    try {
      requests.forEach((request, at) => {
        index = at;
        this.#carryOut(request);
      });
      index = -1;
      this.#tables.forEach(requireShortJumps);
    } catch (thrown) {
      this.#tables = before;
      if (thrown instanceof Refusal) return { index, errno: thrown.errno };
      throw thrown;
    }
    this.#generation += 1;
    return undefined;
  }

  #carryOut({ message, flags, family, attributes }: BatchRequest): void {
    const name = textAt(attributes, 1);
    const found = this.table(family, name);
    if (message === Message.newTable) {
      if (found === undefined) this.#addTable(family, name, attributeOf(attributes, 6));
      else if ((flags & Flag.excl) !== 0) throw new Refusal('EEXIST');
      return;
    }
    const table = need(found);
    if (message === Message.deleteTable) this.#tables = this.#tables.filter((one) => one !== table);
    else (CHANGES[message] ?? unsupported)(table, attributes, flags);
  }

  #addTable(family: number, name: string, userdata: Buffer | undefined): void {
    requireName(name);
    const table = { family, name, userdata, chains: new Map(), sets: new Map(), lastHandle: 0n };
    this.#tables = [...this.#tables, table];
  }
}

/** linux/netfilter/nf_tables.h: NFT_NAME_MAXLEN, NFT_USERDATA_MAXLEN, NFT_RULE_MAXEXPRS, NFT_JUMP_STACK_SIZE */
const NAME_BYTES = 256;
const USERDATA_BYTES = 256;
const MOST_EXPRESSIONS = 128;
const JUMP_STACK_SIZE = 16;
/** NFT_SET_ELEM_INTERVAL_END, NFT_SET_MAP */
const INTERVAL_END = 1;
const SET_MAP = 8;

const Errno = {
  ENOENT: 2,
  EBUSY: 16,
  EEXIST: 17,
  EINVAL: 22,
  ERANGE: 34,
  EMLINK: 31,
  ERESTART: 85,
  EOPNOTSUPP: 95,
};

class Refusal extends Error {
  readonly errno: number;

  constructor(code: keyof typeof Errno) {
    super(code);
    this.errno = Errno[code];
  }
}

type Change = (table: FakeTable, attributes: Buffer, flags: number) => void;

const CHANGES: Readonly<Record<number, Change>> = {
  [Message.newChain]: addChain,
  [Message.deleteChain]: (table, attributes) => {
    const chain = need(table.chains.get(textAt(attributes, 3)));
    table.chains.set(chain.name, { ...chain, rules: [] });
    if (usesOf(table, chain.name) > 0) throw new Refusal('EBUSY');
    table.chains.delete(chain.name);
  },
  [Message.newRule]: addRule,
  [Message.deleteRule]: deleteRules,
  [Message.newSet]: (table, attributes, flags) => {
    const name = textAt(attributes, 2);
    requireName(name);
    if (!table.sets.has(name)) table.sets.set(name, { name, attributes, elements: new Map() });
    else if ((flags & Flag.excl) !== 0) throw new Refusal('EEXIST');
  },
  [Message.deleteSet]: (table, attributes) => {
    const set = need(table.sets.get(textAt(attributes, 2)));
    if (allRules(table).some((rule) => setsOf(rule).includes(set.name))) throw new Refusal('EBUSY');
    table.sets.delete(set.name);
  },
  [Message.newElement]: (table, attributes, flags) => {
    for (const element of elementsOf(attributes)) addElement(table, textAt(attributes, 2), element, flags);
  },
  [Message.deleteElement]: deleteElements,
};

function unsupported(): never {
  throw new Refusal('EINVAL');
}

function addChain(table: FakeTable, attributes: Buffer, flags: number): void {
  const name = textAt(attributes, 3);
  requireName(name);
  const standing = table.chains.get(name);
  const hook = attributeOf(attributes, 4);
  if (standing === undefined) {
    const [policy, type, userdata] = [5, 7, 12].map((attribute) => attributeOf(attributes, attribute));
    table.chains.set(name, { name, hook, type, policy, userdata, rules: [] });
    return;
  }
  if ((flags & Flag.excl) !== 0) throw new Refusal('EEXIST');
  if (hook !== undefined && standing.hook?.equals(hook) !== true) throw new Refusal('EEXIST');
}

function addRule(table: FakeTable, attributes: Buffer, flags: number): void {
  const chain = need(table.chains.get(textAt(attributes, 2)));
  const [compat, userdata] = [5, 7].map((attribute) => attributeOf(attributes, attribute));
  const expressions = attributeOf(attributes, 4) ?? Buffer.alloc(0);
  if ((userdata?.length ?? 0) > USERDATA_BYTES) throw new Refusal('ERANGE');
  if (attributesOf(expressions).length > MOST_EXPRESSIONS) throw new Refusal('EINVAL');
  const rule = { handle: (table.lastHandle += 1n), expressions, compat, userdata };
  for (const set of setsOf(rule)) need(table.sets.get(set));
  const position = attributeOf(attributes, 6)?.readBigUInt64BE();
  const at = position === undefined ? -1 : chain.rules.findIndex(({ handle }) => handle === position);
  if (position !== undefined && at < 0) throw new Refusal('ENOENT');
  const isAppended = (flags & Flag.append) !== 0;
  const index = position === undefined ? (isAppended ? chain.rules.length : 0) : at + (isAppended ? 1 : 0);
  table.chains.set(chain.name, { ...chain, rules: chain.rules.toSpliced(index, 0, rule) });
  for (const target of jumpsOf(rule)) requireTarget(table, target);
}

function deleteRules(table: FakeTable, attributes: Buffer): void {
  const handle = attributeOf(attributes, 3)?.readBigUInt64BE();
  const chain = need(table.chains.get(textAt(attributes, 2)));
  const rules = handle === undefined ? [] : chain.rules.filter((rule) => rule.handle !== handle);
  if (handle !== undefined && rules.length === chain.rules.length) throw new Refusal('ENOENT');
  table.chains.set(chain.name, { ...chain, rules });
}

/** nft_verdict_init: the target exists and is no base chain. */
function requireTarget(table: FakeTable, chain: string): void {
  if (need(table.chains.get(chain)).hook !== undefined) throw new Refusal('EOPNOTSUPP');
}

/** nft_chain_validate: from every base chain, jumps lead at most so deep; so they lead in no circle. */
function requireShortJumps(table: FakeTable): void {
  const visit = (chain: FakeChain, level: number): void => {
    if (level === JUMP_STACK_SIZE) throw new Refusal('EMLINK');
    const maps = chain.rules
      .flatMap(setsOf)
      .flatMap((set) => [...(table.sets.get(set)?.elements.values() ?? [])]);
    for (const target of [...chain.rules.flatMap(jumpsOf), ...maps.flatMap(elementJump)]) {
      visit(need(table.chains.get(target)), level + 1);
    }
  };
  for (const chain of table.chains.values()) if (chain.hook !== undefined) visit(chain, 0);
}

function addElement(table: FakeTable, setName: string, element: Buffer, flags: number): void {
  const set = need(table.sets.get(setName));
  const isMap = (attributeOf(set.attributes, 3)?.readUInt32BE() ?? 0) & SET_MAP;
  const data = attributeOf(element, 2);
  if (!isEnd(element) && (data !== undefined) !== (isMap !== 0)) throw new Refusal('EINVAL');
  if (valueOf(element).length !== attributeOf(set.attributes, 5)?.readUInt32BE()) throw new Refusal('EINVAL');
  for (const target of elementJump(element)) requireTarget(table, target);
  const key = keyOf(element);
  const standing = set.elements.get(key);
  if (standing === undefined) {
    table.sets.set(setName, { ...set, elements: new Map([...set.elements, [key, element]]) });
    return;
  }
  if ((flags & Flag.excl) !== 0) throw new Refusal('EEXIST');
  const same = (attributeOf(standing, 2) ?? Buffer.alloc(0)).equals(data ?? Buffer.alloc(0));
  if (!same) throw new Refusal('EBUSY');
}

function deleteElements(table: FakeTable, attributes: Buffer): void {
  const set = need(table.sets.get(textAt(attributes, 2)));
  const elements = new Map(set.elements);
  const named = elementsOf(attributes);
  // Without a list: all of them.
  if (attributeOf(attributes, 3) === undefined) elements.clear();
  for (const element of named) if (!elements.delete(keyOf(element))) throw new Refusal('ENOENT');
  table.sets.set(set.name, { ...set, elements });
}

/** The element with this key, or the interval that the key is in. */
export function findElement(set: FakeSet, wanted: Buffer): Buffer | undefined {
  const exact = set.elements.get(wanted.toString('hex'));
  if (exact !== undefined) return exact;
  const before = [...set.elements.values()]
    .filter((element) => Buffer.compare(valueOf(element), wanted) <= 0)
    .sort((one, other) => Buffer.compare(valueOf(one), valueOf(other)));
  const last = before.at(-1);
  const isInterval = ((attributeOf(set.attributes, 3)?.readUInt32BE() ?? 0) & 4) !== 0;
  return !isInterval || last === undefined || isEnd(last) ? undefined : last;
}

/** NFTA_CHAIN_USE: its rules, and what leads to it. */
export function usesOf(table: FakeTable, chain: string): number {
  const elements = [...table.sets.values()].flatMap((set) => [...set.elements.values()]);
  const jumps = [...allRules(table).flatMap(jumpsOf), ...elements.flatMap(elementJump)];
  return (table.chains.get(chain)?.rules.length ?? 0) + jumps.filter((target) => target === chain).length;
}

export function textAt(attributes: Buffer, type: number): string {
  return textOf(attributeOf(attributes, type) ?? Buffer.alloc(0));
}

/** NFTA_SET_ELEM_LIST_ELEMENTS, each element's payload. */
export function elementsOf(attributes: Buffer): Buffer[] {
  return attributesOf(attributeOf(attributes, 3) ?? Buffer.alloc(0)).map(([, element]) => element);
}

/** NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE } */
export function valueOf(element: Buffer): Buffer {
  return attributeOf(attributeOf(element, 1) ?? Buffer.alloc(0), 1) ?? Buffer.alloc(0);
}

export function isEnd(element: Buffer): boolean {
  return ((attributeOf(element, 3)?.readUInt32BE() ?? 0) & INTERVAL_END) !== 0;
}

function keyOf(element: Buffer): string {
  return `${valueOf(element).toString('hex')}${isEnd(element) ? ' end' : ''}`;
}

function allRules(table: FakeTable): FakeRule[] {
  return [...table.chains.values()].flatMap(({ rules }) => rules);
}

function jumpsOf({ expressions }: Pick<FakeRule, 'expressions'>): string[] {
  return decodeExpressions(expressions).flatMap((one) =>
    one.kind === 'verdict' && one.chain !== undefined ? [one.chain] : [],
  );
}

function setsOf({ expressions }: Pick<FakeRule, 'expressions'>): string[] {
  return decodeExpressions(expressions).flatMap((one) => (one.kind === 'lookup' ? [one.set] : []));
}

function elementJump(element: Buffer): string[] {
  return [decodeVerdict(attributeOf(element, 2) ?? Buffer.alloc(0))?.chain ?? []].flat();
}

function requireName(name: string): void {
  if (name === '') throw new Refusal('EINVAL');
  if (Buffer.byteLength(name) >= NAME_BYTES) throw new Refusal('ERANGE');
}

function need<T>(found: T | undefined): T {
  if (found === undefined) throw new Refusal('ENOENT');
  return found;
}

/** Chains, sets and rules are never changed but replaced. */
function copyOf(table: FakeTable): FakeTable {
  return { ...table, chains: new Map(table.chains), sets: new Map(table.sets) };
}
