/** Reads nf_tables object by object. */
import { isErrno } from '../../kernel/errno.ts';
import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import type { NftConnection } from './connection.ts';
import { encodeKey, encodeStatements } from './encode.ts';
import { Message, deleteRule, getElement, request, tableText } from './messages.ts';
import type { NftChain, NftElement, NftRule, NftSet, NftTable } from './model.ts';
import { sameExpressions } from './decode-expressions.ts';
import { attributeOf, attributesOf, encodeTree, textAt, textOf, type AttributeNode } from './nlattr.ts';

export class NftReader {
  readonly #connection: NftConnection;

  constructor(connection: NftConnection) {
    this.#connection = connection;
  }

  hasTable(table: NftTable): boolean {
    return this.#has(getTable(table));
  }

  /** Whether one of them exists, in one request. */
  hasAnyTable(tables: readonly NftTable[]): boolean {
    return this.#connection.getAll(tables.map(getTable)).some((body) => body !== undefined);
  }

  hasChain(chain: NftChain): boolean {
    return this.#chain(chain) !== undefined;
  }

  /** A chain's comment; undefined if it has none, or does not exist. */
  chainComment(chain: NftChain): string | undefined {
    const body = this.#chain(chain);
    return body === undefined ? undefined : commentOf(attributeOf(body, 12));
  }

  /** Every chain of the table. */
  chains({ family, name }: NftTable): { name: string; comment: string | undefined }[] {
    return this.#connection
      .dump(`list chains of ${family} ${name}`, Message.getChain, family, [])
      .filter((body) => textAt(body, 1) === name)
      .map((body) => ({ name: textAt(body, 3), comment: commentOf(attributeOf(body, 12)) }));
  }

  /** Every table of IPv4, IPv6 and both. */
  tables(): NftTable[] {
    return (['ip', 'ip6', 'inet'] as const).flatMap((family) =>
      this.#connection
        .dump(`list tables of ${family}`, Message.getTable, family, [])
        .map((body) => ({ family, name: textAt(body, 1) })),
    );
  }

  /** Those of these chains of a table that exist and have a hook, in one request. */
  baseChainsNamed(table: NftTable, names: readonly string[]): StandingBaseChain[] {
    const bodies = this.#connection.getAll(names.map((name) => getChain({ table, name })));
    return bodies.flatMap((body) => (body && standingBaseChain(table, body)) ?? []);
  }

  /** Every base chain of a family's tables. The kernel can only list all chains. */
  baseChains(family: NftTable['family']): StandingBaseChain[] {
    return this.#connection
      .dump(`list chains of ${family}`, Message.getChain, family, [])
      .flatMap((body) => standingBaseChain({ family, name: textAt(body, 1) }, body) ?? []);
  }

  /** The rules of one chain in their order; none when the chain does not exist. */
  rules(chain: NftChain): StandingRule[] {
    return this.#rules(chain, () => true);
  }

  /** Those whose comment has this prefix. The others of a long chain are not decoded. */
  rulesCommented(chain: NftChain, prefix: string): StandingRule[] {
    const bytes = Buffer.from(prefix);
    return this.#rules(chain, (body) => body.includes(bytes)).filter(
      ({ comment }) => comment?.startsWith(prefix) === true,
    );
  }

  #rules(chain: NftChain, mayCount: (body: Buffer) => boolean): StandingRule[] {
    const { family, name } = chain.table;
    const nodes: AttributeNode[] = [
      [1, name],
      [2, chain.name],
    ];
    return this.#connection
      .dump(`list rules of ${family} ${name} ${chain.name}`, Message.getRule, family, nodes)
      .filter((body) => mayCount(body) && textAt(body, 1) === name && textAt(body, 2) === chain.name)
      .map((body) => new StandingRule(chain, body));
  }

  /** The rules of every chain of a table, by the chain's name. */
  rulesOfTable(table: NftTable): Map<string, StandingRule[]> {
    const { family, name } = table;
    const bodies = this.#connection
      .dump(`list rules of ${family} ${name}`, Message.getRule, family, [[1, name]])
      .filter((body) => textAt(body, 1) === name)
      .map((body) => ({ chain: textAt(body, 2), body }));
    const byChain = Map.groupBy(bodies, ({ chain }) => chain);
    return new Map(
      [...byChain].map(([chain, rules]) => [
        chain,
        rules.map(({ body }) => new StandingRule({ table, name: chain }, body)),
      ]),
    );
  }

  /** NFTA_CHAIN_USE (6): its rules, and the rules and elements that lead to it; undefined if the chain does not exist. */
  chainReferences(chain: NftChain): number | undefined {
    const body = this.#chain(chain);
    return body === undefined ? undefined : attributeOf(body, 6)?.readUInt32BE();
  }

  /** Whether a set or map of this name exists. */
  hasSet(set: NftSet): boolean {
    return this.#has(getSet(set));
  }

  /** One element by its key, at a cost independent of their number; undefined if it does not exist. */
  element(set: NftSet, key: NftElement['key']): StandingElement | undefined {
    return elementIn(this.#connection.get(getElement(set, key)));
  }

  /** The same for many keys; the cost of more than a few hundred (a mapped range of ports) is that of all elements. */
  elementsAt(wanted: readonly Pick<NftElement, 'set' | 'key'>[]): (StandingElement | undefined)[] {
    if (wanted.length > MOST_REQUESTS) return this.inBulk().elementsAt(wanted);
    return this.#connection.getAll(wanted.map(({ set, key }) => getElement(set, key))).map(elementIn);
  }

  /** A reader for many containers, valid until something is committed. */
  inBulk(): NftReader {
    return new BulkReader(this.#connection);
  }

  /** Every element with its key's bytes; none if there is no such set. */
  elements({ table, name }: Pick<NftSet, 'table' | 'name'>): (StandingElement & { readonly key: Buffer })[] {
    const what = `list elements of ${table.family} ${table.name} ${name}`;
    const nodes: AttributeNode[] = [
      [1, table.name],
      [2, name],
    ];
    const bodies = ifPresent(() => this.#connection.dump(what, Message.getElement, table.family, nodes));
    return (bodies ?? [])
      .flatMap((body) => attributesOf(attributeOf(body, 3) ?? Buffer.alloc(0)))
      .map(([, element]) => ({ ...standingElement(element), key: keyOf(element) }));
  }

  /** The element of any program's set that has these bytes as its key, or whose interval they are in. */
  elementByBytes(
    { table, name }: Pick<NftSet, 'table' | 'name'>,
    key: Uint8Array,
  ): StandingElement | undefined {
    const what = `get element ${table.family} ${table.name} ${name}`;
    const body = this.#connection.get(
      request(what, Message.getElement, 0, table.family, [
        [1, table.name],
        [2, name],
        [3, [[1, [[1, [[1, key]]]]]]],
      ]),
    );
    return elementIn(body);
  }

  /** The key of any program's set: its size, and whether elements are ranges; undefined when there is no such set. */
  keyOfSet(set: Pick<NftSet, 'table' | 'name'>): { sizeBytes: number; isInterval: boolean } | undefined {
    const body = this.#connection.get(getSet(set));
    if (body === undefined) return undefined;
    const [flags = 0, sizeBytes = 0] = [3, 5].map((type) => attributeOf(body, type)?.readUInt32BE());
    return { sizeBytes, isInterval: (flags & SET_INTERVAL) !== 0 };
  }

  #chain(chain: NftChain): Buffer | undefined {
    return this.#connection.get(getChain(chain));
  }

  #has(asked: NetlinkRequest): boolean {
    return this.#connection.get(asked) !== undefined;
  }
}

/** Reads each table's rules and each set's elements as a whole, and once: the cost of all containers is that of a few lists. */
class BulkReader extends NftReader {
  readonly #rules = new Map<string, ReadonlyMap<string, StandingRule[]>>();
  readonly #elements = new Map<string, ReadonlyMap<string, StandingElement>>();

  override rules({ table, name }: NftChain): StandingRule[] {
    const known = this.#rules.get(tableText(table)) ?? this.rulesOfTable(table);
    this.#rules.set(tableText(table), known);
    return known.get(name) ?? [];
  }

  override element(set: NftSet, key: NftElement['key']): StandingElement | undefined {
    // The kernel finds an interval by any key in it.
    if (set.interval === true) return super.element(set, key);
    const name = `${tableText(set.table)} ${set.name}`;
    const known =
      this.#elements.get(name) ?? new Map(this.elements(set).map((one) => [keyText(one.key), one]));
    this.#elements.set(name, known);
    return known.get(keyText(encodeKey(set.key, key)));
  }

  override elementsAt(wanted: readonly Pick<NftElement, 'set' | 'key'>[]): (StandingElement | undefined)[] {
    return wanted.map(({ set, key }) => this.element(set, key));
  }
}

function keyText(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}

/** A request for each is cheaper than a list of ten thousand elements. */
const MOST_REQUESTS = 500;

/** NFT_SET_INTERVAL */
const SET_INTERVAL = 4;

function getSet({ table: { family, name: table }, name }: Pick<NftSet, 'table' | 'name'>): NetlinkRequest {
  return request(`get set ${family} ${table} ${name}`, Message.getSet, 0, family, [
    [1, table],
    [2, name],
  ]);
}

function getChain({ table, name }: NftChain): NetlinkRequest {
  return request(`get chain ${table.family} ${table.name} ${name}`, Message.getChain, 0, table.family, [
    [1, table.name],
    [3, name],
  ]);
}

function getTable({ family, name }: NftTable): NetlinkRequest {
  return request(`get table ${family} ${name}`, Message.getTable, 0, family, [[1, name]]);
}

/** The element of an answer to `getElement`. */
function elementIn(body: Buffer | undefined): StandingElement | undefined {
  const list = body === undefined ? undefined : attributeOf(body, 3);
  const [first] = list === undefined ? [] : attributesOf(list);
  return first === undefined ? undefined : standingElement(first[1]);
}

/** A rule in the kernel. */
export class StandingRule {
  readonly handle: bigint;
  readonly comment: string | undefined;
  readonly #chain: NftChain;
  readonly #list: Buffer;

  /** @param body NFTA_RULE_* attributes */
  constructor(chain: NftChain, body: Buffer) {
    this.#chain = chain;
    this.handle = attributeOf(body, 3)?.readBigUInt64BE() ?? 0n;
    this.comment = commentOf(attributeOf(body, 7));
    this.#list = attributeOf(body, 4) ?? Buffer.alloc(0);
  }

  /** Same statements and comment; counters are ignored. */
  is(rule: Pick<NftRule, 'statements' | 'comment'>): boolean {
    if (rule.comment !== this.comment) return false;
    return sameExpressions(
      encodeTree(encodeStatements(this.#chain.table.family, rule.statements)),
      this.#list,
    );
  }

  /** Whether the rule ends with these statements. */
  endsWith(statements: NftRule['statements']): boolean {
    const ours = encodeTree(encodeStatements(this.#chain.table.family, statements));
    const last = attributesOf(this.#list).at(-attributesOf(ours).length)?.[1];
    if (last === undefined) return false;
    // The payload is a view of the list; its attribute header of four bytes precedes it.
    return sameExpressions(ours, this.#list.subarray(last.byteOffset - this.#list.byteOffset - 4));
  }

  /** NFTA_RULE_EXPRESSIONS */
  get expressions(): Buffer {
    return this.#list;
  }

  deletion(): NetlinkRequest {
    return deleteRule(this.#chain, this.handle);
  }
}

/** A chain with a hook. */
export interface StandingBaseChain {
  readonly table: NftTable;
  readonly name: string;
  /** NF_INET_*: 2 is forward. */
  readonly hook: number;
  readonly policy: 'accept' | 'drop';
}

export interface StandingElement {
  readonly comment: string | undefined;
  /** In a verdict map: a code of `VerdictCode`. */
  readonly verdict: number | undefined;
  /** The chain that it jumps or goes to, in a verdict map. */
  readonly chain: string | undefined;
}

/** The text of a comment TLV (type 0) among user data; undefined when there is none. */
export function commentOf(userdata: Buffer | undefined): string | undefined {
  for (let at = 0; userdata !== undefined && at + 2 <= userdata.length; at += 2 + (userdata[at + 1] ?? 0)) {
    if (userdata[at] === 0) return textOf(userdata.subarray(at + 2, at + 2 + (userdata[at + 1] ?? 0)));
  }
  return undefined;
}

function standingElement(element: Buffer): StandingElement {
  const verdict = attributeOf(attributeOf(element, 2) ?? Buffer.alloc(0), 2);
  const chain = verdict === undefined ? undefined : attributeOf(verdict, 2);
  return {
    comment: commentOf(attributeOf(element, 6)),
    verdict: verdict === undefined ? undefined : attributeOf(verdict, 1)?.readInt32BE(),
    chain: chain === undefined ? undefined : textOf(chain),
  };
}

/** NFTA_CHAIN_NAME (3), _HOOK (4) { _HOOKNUM (1) }, _POLICY (5): 0 is NF_DROP */
function standingBaseChain(table: NftTable, body: Buffer): StandingBaseChain | undefined {
  const hook = attributeOf(body, 4);
  const number = hook === undefined ? undefined : attributeOf(hook, 1)?.readUInt32BE();
  if (number === undefined) return undefined;
  const policy = attributeOf(body, 5)?.readUInt32BE() === 0 ? 'drop' : 'accept';
  return { table, name: textAt(body, 3), hook: number, policy };
}

/** NFTA_SET_ELEM_KEY (1) { NFTA_DATA_VALUE (1) } */
function keyOf(element: Buffer): Buffer {
  return attributeOf(attributeOf(element, 1) ?? Buffer.alloc(0), 1) ?? Buffer.alloc(0);
}

function ifPresent<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT')) return undefined;
    throw thrown;
  }
}
