/**
 * Expressions as the kernel lists them, decoded. The inverse of expressions.ts, which shows the layout of each; attributes that this suite
 * does not use are not decoded. Decoding never fails: a missing attribute gives 0 or no bytes.
 */
import {
  BITWISE,
  BYTEORDER,
  CMP,
  COUNTER,
  CT,
  DATA,
  EXPR,
  IMMEDIATE,
  LOOKUP,
  META,
  PAYLOAD,
  RANGE,
  REGISTER_VERDICT,
  REJECT,
  VERDICT,
  XTABLES,
} from './expressions.ts';
import { attributeOf, attributesOf, textAt, textOf } from './nlattr.ts';

export type DecodedExpression =
  /** `register` is undefined for an expression that stores into the packet (`meta mark set`, `payload set`, `ct mark set`). */
  | { readonly kind: 'meta' | 'ct'; readonly key: number; readonly register: number | undefined }
  | {
      readonly kind: 'payload';
      readonly base: number;
      readonly offset: number;
      readonly length: number;
      readonly register: number | undefined;
    }
  | { readonly kind: 'cmp'; readonly register: number; readonly op: number; readonly value: Buffer }
  | {
      readonly kind: 'range';
      readonly register: number;
      readonly op: number;
      readonly from: Buffer;
      readonly to: Buffer;
    }
  /** `op` 0: `destination = (source & mask) ^ xor`; other operations have no mask. */
  | {
      readonly kind: 'bitwise';
      readonly source: number;
      readonly destination: number;
      readonly length: number;
      readonly op: number;
      readonly mask: Buffer;
      readonly xor: Buffer;
    }
  | {
      readonly kind: 'byteorder';
      readonly source: number;
      readonly destination: number;
      readonly length: number;
    }
  | { readonly kind: 'immediate'; readonly register: number; readonly value: Buffer }
  /** An immediate into the verdict register; `chain` of a jump or goto. */
  | { readonly kind: 'verdict'; readonly code: number; readonly chain: string | undefined }
  /** `destination` of a map's data, {@link REGISTER_VERDICT} for a verdict map. */
  | {
      readonly kind: 'lookup';
      readonly set: string;
      readonly register: number;
      readonly destination: number | undefined;
      readonly inverted: boolean;
    }
  | { readonly kind: 'counter'; readonly bytes: bigint; readonly packets: bigint }
  | { readonly kind: 'reject'; readonly type: number }
  | {
      readonly kind: 'match' | 'target';
      readonly name: string;
      readonly revision: number;
      readonly info: Buffer;
    }
  /** Any other expression, by the kernel's name: `nat`, `redir`, `masq`, `fib`, `limit`, `log`, ... */
  | { readonly kind: 'other'; readonly name: string };

/** All expressions of a rule in their order. @param list the payload of NFTA_RULE_EXPRESSIONS */
export function decodeExpressions(list: Buffer): DecodedExpression[] {
  return attributesOf(list).map(([, element]) => decodeExpression(element));
}

/** @param element the payload of one NFTA_LIST_ELEM */
export function decodeExpression(element: Buffer): DecodedExpression {
  const { name, data } = splitExpression(element);
  return DECODERS[name]?.(data) ?? { kind: 'other', name };
}

/** NFTA_DATA_VERDICT as in an immediate or in an element of a verdict map. @param data the payload of NFTA_IMMEDIATE_DATA, NFTA_SET_ELEM_DATA */
export function decodeVerdict(
  data: Buffer,
): { readonly code: number; readonly chain: string | undefined } | undefined {
  const verdict = attributeOf(data, DATA.verdict);
  const code = verdict && attributeOf(verdict, VERDICT.code);
  if (verdict === undefined || code === undefined) return undefined;
  const chain = attributeOf(verdict, VERDICT.chain);
  return { code: code.readInt32BE(), chain: chain === undefined ? undefined : textOf(chain) };
}

/** The chain that a rule jumps or goes to, whatever else it holds; cheaper than decoding all of it. */
export function jumpTarget(list: Buffer): string | undefined {
  for (const [, element] of attributesOf(list)) {
    const { name, data } = splitExpression(element);
    if (name !== 'immediate') continue;
    const chain = decodeVerdict(attributeOf(data, IMMEDIATE.data) ?? EMPTY)?.chain;
    if (chain !== undefined) return chain;
  }
  return undefined;
}

/**
 * Whether two lists are equal, except for counters and attributes that the kernel adds: compares the name of each expression, and every attribute
 * that `ours` has.
 */
export function sameExpressions(ours: Buffer, theirs: Buffer): boolean {
  const left = attributesOf(ours).map(([, element]) => splitExpression(element));
  const right = attributesOf(theirs).map(([, element]) => splitExpression(element));
  return (
    left.length === right.length && left.every((expression, at) => sameExpression(expression, right[at]))
  );
}

/** NFTA_BITWISE_OP of an and-xor; the others shift, or combine registers. */
export const BITWISE_MASK_XOR = 0;

const DECODERS: Readonly<Record<string, (data: Buffer) => DecodedExpression>> = {
  meta: (data) => ({ kind: 'meta', key: u32(data, META.key), register: register(data, META.dreg) }),
  ct: (data) => ({ kind: 'ct', key: u32(data, CT.key), register: register(data, CT.dreg) }),
  payload: (data) => ({
    kind: 'payload',
    base: u32(data, PAYLOAD.base),
    offset: u32(data, PAYLOAD.offset),
    length: u32(data, PAYLOAD.len),
    register: register(data, PAYLOAD.dreg),
  }),
  cmp: (data) => ({
    kind: 'cmp',
    register: u32(data, CMP.sreg),
    op: u32(data, CMP.op),
    value: value(data, CMP.data),
  }),
  range: (data) => ({
    kind: 'range',
    register: u32(data, RANGE.sreg),
    op: u32(data, RANGE.op),
    from: value(data, RANGE.fromData),
    to: value(data, RANGE.toData),
  }),
  bitwise: (data) => ({
    kind: 'bitwise',
    source: u32(data, BITWISE.sreg),
    destination: u32(data, BITWISE.dreg),
    length: u32(data, BITWISE.len),
    op: u32(data, BITWISE.op),
    mask: value(data, BITWISE.mask),
    xor: value(data, BITWISE.xor),
  }),
  byteorder: (data) => ({
    kind: 'byteorder',
    source: u32(data, BYTEORDER.sreg),
    destination: u32(data, BYTEORDER.dreg),
    length: u32(data, BYTEORDER.len),
  }),
  immediate: (data) => {
    const to = u32(data, IMMEDIATE.dreg);
    if (to !== REGISTER_VERDICT)
      return { kind: 'immediate', register: to, value: value(data, IMMEDIATE.data) };
    const verdict = decodeVerdict(attributeOf(data, IMMEDIATE.data) ?? EMPTY);
    return verdict === undefined ? { kind: 'other', name: 'immediate' } : { kind: 'verdict', ...verdict };
  },
  lookup: (data) => ({
    kind: 'lookup',
    set: textAt(data, LOOKUP.set),
    register: u32(data, LOOKUP.sreg),
    destination: register(data, LOOKUP.dreg),
    inverted: (u32(data, LOOKUP.flags) & 1) === 1,
  }),
  counter: (data) => ({
    kind: 'counter',
    bytes: u64(data, COUNTER.bytes),
    packets: u64(data, COUNTER.packets),
  }),
  reject: (data) => ({ kind: 'reject', type: u32(data, REJECT.type) }),
  match: (data) => ({ kind: 'match', ...extension(data) }),
  target: (data) => ({ kind: 'target', ...extension(data) }),
};

function extension(data: Buffer): { name: string; revision: number; info: Buffer } {
  return {
    name: textAt(data, XTABLES.name),
    revision: u32(data, XTABLES.rev),
    info: attributeOf(data, XTABLES.info) ?? EMPTY,
  };
}

function register(data: Buffer, attribute: number): number | undefined {
  return attributeOf(data, attribute)?.readUInt32BE();
}

function u32(data: Buffer, attribute: number): number {
  return attributeOf(data, attribute)?.readUInt32BE() ?? 0;
}

function u64(data: Buffer, attribute: number): bigint {
  return attributeOf(data, attribute)?.readBigUInt64BE() ?? 0n;
}

/** The bytes of `attribute { NFTA_DATA_VALUE }`. */
function value(data: Buffer, attribute: number): Buffer {
  return attributeOf(attributeOf(data, attribute) ?? EMPTY, DATA.value) ?? EMPTY;
}

interface SplitExpression {
  readonly name: string;
  readonly data: Buffer;
}

function splitExpression(element: Buffer): SplitExpression {
  return {
    name: textAt(element, EXPR.name),
    data: attributeOf(element, EXPR.data) ?? EMPTY,
  };
}

function sameExpression(ours: SplitExpression, theirs: SplitExpression | undefined): boolean {
  if (ours.name !== theirs?.name) return false;
  if (ours.name === 'counter') return true;
  return attributesOf(ours.data).every(([type, bytes]) => {
    const other = attributeOf(theirs.data, type);
    return (
      other !== undefined && comparable(ours.name, type, bytes).equals(comparable(ours.name, type, other))
    );
  });
}

/** The nested flag of an attribute's type may be set or not; only its payload is compared. */
function comparable(name: string, type: number, bytes: Buffer): Buffer {
  const isValue =
    (name === 'cmp' && type === CMP.data) ||
    (name === 'bitwise' && type >= BITWISE.mask) ||
    (name === 'range' && type >= RANGE.fromData);
  if (isValue) return attributeOf(bytes, DATA.value) ?? bytes;
  return name === 'immediate' && type === IMMEDIATE.data ? verdictBytes(bytes) : bytes;
}

function verdictBytes(data: Buffer): Buffer {
  const verdict = attributeOf(data, DATA.verdict) ?? EMPTY;
  return Buffer.concat([
    attributeOf(verdict, VERDICT.code) ?? EMPTY,
    attributeOf(verdict, VERDICT.chain) ?? EMPTY,
  ]);
}

const EMPTY = Buffer.alloc(0);
