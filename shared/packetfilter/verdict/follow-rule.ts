import { BITWISE_MASK_XOR, type DecodedExpression } from '../nftables/decode-expressions.ts';
import { CompareOp, REGISTER_VERDICT, VerdictCode } from '../nftables/expressions.ts';
import type { NftTable } from '../nftables/model.ts';
import type { NftReader } from '../nftables/reader.ts';
import {
  CONNTRACK_DNAT,
  CONNTRACK_SNAT,
  CONNTRACK_STATE,
  CONNTRACK_STATES,
  conntrackTests,
  decodeXtMatch,
} from '../xtables/matches.ts';
import {
  areKnown,
  compareBytes,
  conntrackOf,
  differ,
  LARGEST_VALUE,
  metaOf,
  payloadOf,
  Registers,
  unknownBytes,
  type Bytes,
  type KnownPacket,
  type Ternary,
} from './packet.ts';

/** What a rule does with a packet, as far as both are known. */
export interface RuleOutcome {
  /** Whether the packet reaches the rule's end. */
  readonly matches: Ternary;
  /** A code of `VerdictCode`, `any` when it is unknown which; undefined for a rule that decides nothing. */
  readonly verdict: number | 'any' | undefined;
  /** The chain of a jump or goto. */
  readonly chain: string | undefined;
}

/**
 * Follows one packet through one rule of any program. What is not understood (a rate limit, a set whose key is not known) may or may not let
 * the packet pass. Sets are looked up in the kernel by the very key.
 */
export function followRule(
  reader: NftReader,
  table: NftTable,
  expressions: readonly DecodedExpression[],
  packet: KnownPacket,
): RuleOutcome {
  const rule = new RuleInterpreter(reader, table, packet);
  for (const expression of expressions) {
    const isDecided = rule.execute(expression);
    if (rule.matches === 'no' || isDecided) break;
  }
  return rule;
}

class RuleInterpreter implements RuleOutcome {
  matches: Ternary = 'yes';
  verdict: number | 'any' | undefined;
  chain: string | undefined;
  readonly #registers = new Registers();
  readonly #reader: NftReader;
  readonly #table: NftTable;
  readonly #packet: KnownPacket;

  constructor(reader: NftReader, table: NftTable, packet: KnownPacket) {
    this.#reader = reader;
    this.#table = table;
    this.#packet = packet;
  }

  /** @returns whether a verdict was reached */
  execute(expression: DecodedExpression): boolean {
    switch (expression.kind) {
      case 'meta':
        this.#load(expression.register, metaOf(this.#packet, expression.key));
        break;
      case 'payload': {
        const { base, offset, length, register } = expression;
        this.#load(register, payloadOf(this.#packet, base, offset, length));
        break;
      }
      case 'ct':
        this.#load(expression.register, conntrackOf(this.#packet, expression.key));
        break;
      case 'bitwise':
        this.#load(expression.destination, this.#bitwise(expression));
        break;
      case 'byteorder':
        this.#load(expression.destination, unknownBytes(expression.length));
        break;
      case 'cmp': {
        const bytes = this.#registers.read(expression.register, expression.value.length);
        this.#judge(compared(bytes, expression.op, expression.value));
        break;
      }
      case 'range':
        this.#judge(this.#inRange(expression));
        break;
      case 'immediate':
        this.#load(expression.register, [...expression.value]);
        break;
      case 'lookup':
        return this.#lookup(expression);
      case 'verdict':
        return this.#decide(expression.code, expression.chain);
      case 'match':
        this.#judge(matchesXtables(expression, this.#packet));
        break;
      case 'reject':
        return this.#decide(VerdictCode.drop);
      case 'target':
        return expression.name === 'REJECT' && this.#decide(VerdictCode.drop);
      case 'other':
        if (expression.name === 'queue') return this.#decide('any');
        if (!PASSES_ALL.has(expression.name)) this.#judge('maybe');
        break;
      case 'counter':
    }
    return false;
  }

  /**
   * The kernel fills the rest of the last 4 bytes with zeros. Without a register the expression changes the packet instead, in ways that
   * are not followed.
   */
  #load(register: number | undefined, bytes: Bytes): void {
    if (register === undefined) return;
    const padding = Array.from({ length: -bytes.length & 3 }, () => 0);
    this.#registers.write(register, [...bytes, ...padding]);
  }

  #judge(matches: Ternary): void {
    if (matches === 'no' || this.matches === 'yes') this.matches = matches;
  }

  #bitwise({ source, length, op, mask, xor }: DecodedExpression & { kind: 'bitwise' }): Bytes {
    if (op !== BITWISE_MASK_XOR) return unknownBytes(length);
    return this.#registers.read(source, length).map((byte, at) => {
      const kept = mask[at] ?? 0;
      if (kept === 0) return xor[at] ?? 0;
      return byte === undefined ? undefined : (byte & kept) ^ (xor[at] ?? 0);
    });
  }

  #inRange({ register, op, from, to }: DecodedExpression & { kind: 'range' }): Ternary {
    const bytes = this.#registers.read(register, from.length);
    const [below, above] = [compareBytes(bytes, [...from]), compareBytes(bytes, [...to])];
    if (below === undefined || above === undefined) return 'maybe';
    const inside = below >= 0 && above <= 0;
    return inside === (op === CompareOp.eq) ? 'yes' : 'no';
  }

  #lookup({ set, register, destination, inverted }: DecodedExpression & { kind: 'lookup' }): boolean {
    const named = { table: this.#table, name: set };
    const shape = this.#reader.keyOfSet(named);
    const key = shape === undefined ? undefined : this.#registers.read(register, shape.sizeBytes);
    if (key === undefined || !areKnown(key)) {
      // One known field of several may exclude every element: { udp . 53 } and a packet of TCP.
      const isAbsent =
        shape?.isInterval === false &&
        key?.some((byte) => byte !== undefined) === true &&
        this.#reader.elements(named).every((element) => differ(key, [...element.key]));
      if (isAbsent) {
        this.#judge(inverted ? 'yes' : 'no');
        return false;
      }
      this.#judge('maybe');
      return destination === REGISTER_VERDICT && this.#decide('any');
    }
    const found = this.#reader.elementByBytes(named, Uint8Array.from(key));
    this.#judge((found !== undefined) === inverted ? 'no' : 'yes');
    if (destination === undefined || found === undefined) return false;
    if (destination !== REGISTER_VERDICT) {
      this.#registers.write(destination, unknownBytes(LARGEST_VALUE));
      return false;
    }
    return this.#decide(found.verdict, found.chain);
  }

  #decide(verdict: number | 'any' | undefined, chain?: string): true {
    this.verdict = verdict;
    this.chain = chain;
    return true;
  }
}

/** Expressions that let every packet pass. */
const PASSES_ALL: ReadonlySet<string> = new Set(['log', 'notrack', 'objref', 'flow_offload', 'last']);

function compared(bytes: Bytes, op: number, wanted: Buffer): Ternary {
  if (op === CompareOp.eq || op === CompareOp.neq) {
    const equal = differ(bytes, [...wanted]) ? false : areKnown(bytes) ? true : undefined;
    return equal === undefined ? 'maybe' : equal === (op === CompareOp.eq) ? 'yes' : 'no';
  }
  const order = compareBytes(bytes, [...wanted]);
  if (order === undefined) return 'maybe';
  return holdsFor(order, op) ? 'yes' : 'no';
}

function holdsFor(order: number, op: number): boolean {
  if (op === CompareOp.lt) return order < 0;
  if (op === CompareOp.lte) return order <= 0;
  return op === CompareOp.gt ? order > 0 : order >= 0;
}

/** Whether a match of xtables (what iptables-nft has no expression for) holds for a packet. */
function matchesXtables(
  { name, revision, info }: { readonly name: string; readonly revision: number; readonly info: Buffer },
  packet: KnownPacket,
): Ternary {
  switch (name) {
    case 'comment':
      return 'yes';
    case 'conntrack':
      return matchesConntrack(revision, info, packet);
    case 'multiport':
      return revision === 1 ? matchesMultiport(info, packet) : 'maybe';
    default:
      return 'maybe';
  }
}

/** Any other test beside the state may fail. */
function matchesConntrack(revision: number, info: Buffer, { state, translated }: KnownPacket): Ternary {
  const conntrack = conntrackTests(revision, info);
  if (conntrack === undefined || (conntrack.tests & CONNTRACK_STATE) === 0) return 'maybe';
  const bits =
    CONNTRACK_STATES[state === 'new' ? 'NEW' : 'ESTABLISHED'] | (translated === true ? CONNTRACK_DNAT : 0);
  const inverted = (conntrack.inverted & CONNTRACK_STATE) !== 0;
  const matches = (conntrack.states & bits) !== 0;
  // The source of a new connection is translated after this hook; of an established one, it is not known.
  if (!matches && state === 'established' && (conntrack.states & CONNTRACK_SNAT) !== 0) return 'maybe';
  if (matches === inverted) return 'no';
  return conntrack.tests === CONNTRACK_STATE ? 'yes' : 'maybe';
}

/** A list of destination ports that is not inverted; see struct xt_multiport_v1. */
function matchesMultiport(info: Buffer, { destinationPort: port }: KnownPacket): Ternary {
  const match = info[0] === 1 && info[47] === 0 ? decodeXtMatch('multiport', info) : undefined;
  if (match?.kind !== 'multiport' || port === undefined) return 'maybe';
  return match.destinationPorts.some(({ first, last }) => first <= port && port <= last) ? 'yes' : 'no';
}
