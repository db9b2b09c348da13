import { CompareOp, VerdictCode } from '../nftables/expressions.ts';
import type { NftTable } from '../nftables/model.ts';
import { parseExpression, type RawExpression } from '../nftables/decode-expressions.ts';
import { attributeOf, attributesOf, textOf } from '../nftables/nlattr.ts';
import type { NftReader } from '../nftables/reader.ts';
import {
  type Bytes,
  type KnownPacket,
  Registers,
  areKnown,
  compareBytes,
  conntrackOf,
  differ,
  headerOf,
  metaOf,
  unknownBytes,
} from './packet.ts';
import { matchesXtables } from './match.ts';

/** What a rule does with a packet, as far as both are known. */
export interface RuleOutcome {
  /** Whether the packet reaches the rule's end. */
  readonly matches: Ternary;
  /** A code of `VerdictCode`, `any` when it cannot be told which; undefined for a rule that decides nothing. */
  readonly verdict: number | 'any' | undefined;
  /** Where a jump or goto leads. */
  readonly chain: string | undefined;
}

export type Ternary = 'yes' | 'no' | 'maybe';

/**
 * Follows one packet through one rule of anybody's. What is not understood (a limit, a test of ports, a set keyed by what is not
 * known) may or may not let the packet pass. Sets are asked for the very key.
 * @param list the rule's NFTA_RULE_EXPRESSIONS
 */
export function followRule(view: NftReader, table: NftTable, list: Buffer, packet: KnownPacket): RuleOutcome {
  const walk = new Walk(view, table, packet);
  for (const [, element] of attributesOf(list)) {
    const done = walk.step(parseExpression(element));
    if (walk.matches === 'no' || done) break;
  }
  return walk;
}

class Walk implements RuleOutcome {
  matches: Ternary = 'yes';
  verdict: number | 'any' | undefined;
  chain: string | undefined;
  readonly #registers = new Registers();
  readonly #view: NftReader;
  readonly #table: NftTable;
  readonly #packet: KnownPacket;

  constructor(view: NftReader, table: NftTable, packet: KnownPacket) {
    this.#view = view;
    this.#table = table;
    this.#packet = packet;
  }

  /** @returns whether a verdict was reached */
  step({ name, data }: RawExpression): boolean {
    switch (name) {
      case 'meta':
        this.#load(data, 1, metaOf(this.#packet, number(data, 2)));
        break;
      case 'payload':
        this.#load(data, 1, this.#payload(data));
        break;
      case 'ct':
        this.#load(data, 1, conntrackOf(this.#packet, number(data, 2)));
        break;
      case 'bitwise':
        this.#load(data, 2, this.#bitwise(data));
        break;
      case 'cmp':
        this.#judge(compared(this.#read(data, 1, value(data, 3).length), number(data, 2), value(data, 3)));
        break;
      case 'range':
        this.#judge(this.#inRange(data));
        break;
      case 'lookup':
        return this.#lookup(data);
      case 'immediate':
        return this.#immediate(data);
      case 'match':
        this.#judge(matchesXtables(data, this.#packet));
        break;
      case 'reject':
        return this.#decide(VerdictCode.drop);
      case 'queue':
        return this.#decide('any');
      case 'target':
        return XT_REJECTS.has(textOf(attributeOf(data, 1) ?? EMPTY)) && this.#decide(VerdictCode.drop);
      default:
        if (!HARMLESS.has(name)) this.#judge('maybe');
    }
    return false;
  }

  #read(data: Buffer, attribute: number, length: number): Bytes {
    const register = number(data, attribute);
    return register === undefined ? unknownBytes(length) : this.#registers.read(register, length);
  }

  /** An expression without this attribute stores instead: it changes the packet in ways that are not followed. */
  #load(data: Buffer, attribute: number, bytes: Bytes): void {
    const register = number(data, attribute);
    if (register !== undefined) this.#registers.write(register, bytes);
  }

  #judge(matches: Ternary): void {
    if (matches === 'no' || this.matches === 'yes') this.matches = matches;
  }

  #payload(data: Buffer): Bytes {
    const [base, offset = 0, length = 0] = [2, 3, 4].map((attribute) => number(data, attribute));
    return base === NETWORK_HEADER ? headerOf(this.#packet, offset, length) : unknownBytes(length);
  }

  /** NFTA_BITWISE_SREG (1), _DREG (2), _LEN (3), _MASK (4), _XOR (5), _OP (6): 0 is and-xor, others shift */
  #bitwise(data: Buffer): Bytes {
    const length = number(data, 3) ?? 0;
    const [mask, xor] = [value(data, 4), value(data, 5)];
    if ((number(data, 6) ?? 0) !== 0) return unknownBytes(length);
    return this.#read(data, 1, length).map((byte, at) => {
      const kept = mask[at] ?? 0;
      if (kept === 0) return xor[at] ?? 0;
      return byte === undefined ? undefined : (byte & kept) ^ (xor[at] ?? 0);
    });
  }

  /** NFTA_RANGE_SREG (1), _OP (2), _FROM_DATA (3), _TO_DATA (4) */
  #inRange(data: Buffer): Ternary {
    const [from, to] = [value(data, 3), value(data, 4)];
    const bytes = this.#read(data, 1, from.length);
    const [below, above] = [compareBytes(bytes, [...from]), compareBytes(bytes, [...to])];
    if (below === undefined || above === undefined) return 'maybe';
    const inside = below >= 0 && above <= 0;
    return inside === (number(data, 2) === CompareOp.eq) ? 'yes' : 'no';
  }

  /** NFTA_LOOKUP_SET (1), _SREG (2), _DREG (3): 0 for a verdict, _FLAGS (5): 1 inverts */
  #lookup(data: Buffer): boolean {
    const set = { table: this.#table, name: textOf(attributeOf(data, 1) ?? EMPTY) };
    const destination = number(data, 3);
    const length = this.#view.keyLength(set);
    const key = length === undefined ? undefined : this.#read(data, 2, length);
    if (key === undefined || !areKnown(key)) {
      this.#judge('maybe');
      return destination === VERDICT_REGISTER && this.#decide('any');
    }
    const found = this.#view.elementByBytes(set, Uint8Array.from(key));
    const inverted = ((number(data, 5) ?? 0) & 1) === 1;
    this.#judge((found !== undefined) === inverted ? 'no' : 'yes');
    if (destination === undefined || found === undefined) return false;
    if (destination !== VERDICT_REGISTER) {
      this.#registers.write(destination, unknownBytes(LARGEST));
      return false;
    }
    return this.#decide(found.verdict, found.chain);
  }

  /** NFTA_IMMEDIATE_DREG (1), _DATA (2) { NFTA_DATA_VALUE (1), NFTA_DATA_VERDICT (2) { _CODE (1), _CHAIN (2) } } */
  #immediate(data: Buffer): boolean {
    if (number(data, 1) !== VERDICT_REGISTER) {
      this.#load(data, 1, [...value(data, 2)]);
      return false;
    }
    const verdict = attributeOf(attributeOf(data, 2) ?? EMPTY, 2) ?? EMPTY;
    const chain = attributeOf(verdict, 2);
    return this.#decide(
      attributeOf(verdict, 1)?.readInt32BE(),
      chain === undefined ? undefined : textOf(chain),
    );
  }

  #decide(verdict: number | 'any' | undefined, chain?: string): true {
    this.verdict = verdict;
    this.chain = chain;
    return true;
  }
}

const EMPTY = Buffer.alloc(0);
const VERDICT_REGISTER = 0;
/** NFT_PAYLOAD_NETWORK_HEADER */
const NETWORK_HEADER = 1;
const LARGEST = 16;
/** Targets of iptables-nft that end a packet; others of xtables' (LOG, MARK, …) decide nothing. */
const XT_REJECTS: ReadonlySet<string> = new Set(['REJECT']);
/** Expressions that let every packet pass. */
const HARMLESS: ReadonlySet<string> = new Set([
  'counter',
  'log',
  'notrack',
  'objref',
  'flow_offload',
  'last',
]);

function compared(bytes: Bytes, op: number | undefined, wanted: Buffer): Ternary {
  if (op === CompareOp.eq || op === CompareOp.neq) {
    const equal = differ(bytes, [...wanted]) ? false : areKnown(bytes) ? true : undefined;
    return equal === undefined ? 'maybe' : equal === (op === CompareOp.eq) ? 'yes' : 'no';
  }
  const order = compareBytes(bytes, [...wanted]);
  if (order === undefined) return 'maybe';
  return holdsFor(order, op) ? 'yes' : 'no';
}

function holdsFor(order: number, op: number | undefined): boolean {
  if (op === CompareOp.lt) return order < 0;
  if (op === CompareOp.lte) return order <= 0;
  return op === CompareOp.gt ? order > 0 : order >= 0;
}

function number(data: Buffer, attribute: number): number | undefined {
  return attributeOf(data, attribute)?.readUInt32BE();
}

/** NFTA_DATA_VALUE (1) within an attribute; empty when it is not there. */
function value(data: Buffer, attribute: number): Buffer {
  return attributeOf(attributeOf(data, attribute) ?? EMPTY, 1) ?? EMPTY;
}
