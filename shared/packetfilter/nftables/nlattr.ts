import { align, uint16At } from '../../kernel/netlink/attributes.ts';

/**
 * A netlink attribute as data: its type (NFTA_*), and bytes, a NUL-terminated string, a number (of 32 bits; of 64 bits as bigint), or nested
 * attributes. nf_tables numbers are big-endian throughout (struct nlattr's own header stays host-endian).
 */
export type AttributeNode = readonly [type: number, value: LeafValue | readonly AttributeNode[]];
type LeafValue = Uint8Array | string | number | bigint;

/**
 * ```
 *  0               2               4
 * +---------------+---------------+----------------------+---------+
 * | nla_len       | nla_type      | payload              | 0 .. 3  |
 * +---------------+---------------+----------------------+---------+
 *   with header,    bit 15: holds                          padding, not counted
 *   w/o padding     attributes
 * ```
 * (linux/netlink.h, struct nlattr; both fields host-endian)
 * @param before precedes the attributes; a multiple of four bytes
 */
export function encodeTree(nodes: readonly AttributeNode[], before: Uint8Array = NOTHING): Buffer {
  reserve(before.length);
  scratch.set(before);
  // It may have been replaced by a larger one.
  const end = writeNodes(before.length, nodes);
  return Buffer.from(scratch.subarray(0, end));
}

/** Reads one level; nested levels are read by calling it on the value. Malformed lengths end the walk. */
export function attributesOf(bytes: Buffer): (readonly [type: number, value: Buffer])[] {
  const all: (readonly [number, Buffer])[] = [];
  for (let at = 0; at + HEADER <= bytes.length;) {
    const length = uint16At(bytes, at);
    if (length < HEADER || at + length > bytes.length) break;
    all.push([uint16At(bytes, at + 2) & TYPE_MASK, bytes.subarray(at + HEADER, at + length)]);
    at += align(length);
  }
  return all;
}

/** The first attribute of a type, at one level. */
export function attributeOf(bytes: Buffer, type: number): Buffer | undefined {
  for (let at = 0; at + HEADER <= bytes.length;) {
    const length = uint16At(bytes, at);
    if (length < HEADER || at + length > bytes.length) return undefined;
    if ((uint16At(bytes, at + 2) & TYPE_MASK) === type) return bytes.subarray(at + HEADER, at + length);
    at += align(length);
  }
  return undefined;
}

/** A string up to its NUL. */
export function textOf(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}

/** The string in the first attribute of a type; empty without one. */
export function textAt(bytes: Buffer, type: number): string {
  const value = attributeOf(bytes, type);
  return value === undefined ? '' : textOf(value);
}

const HEADER = 4;
const NESTED = 0x8000;
const TYPE_MASK = 0x3fff;

const NOTHING = new Uint8Array(0);
/** Trees are written here, because their length is not known in advance. */
let scratch = Buffer.alloc(0);

function reserve(end: number): void {
  if (end <= scratch.length) return;
  const larger = Buffer.alloc(Math.max(4096, 2 * end));
  scratch.copy(larger);
  scratch = larger;
}

/**
 * In one pass: nested attributes are written before the length that precedes them. Computing lengths first would walk the tree once per level, and
 * a rule has eight.
 * @returns the offset of the next attribute
 */
function writeNodes(start: number, nodes: readonly AttributeNode[]): number {
  let at = start;
  for (let index = 0; index < nodes.length; index++) {
    const node = nodes[index];
    if (node === undefined) continue;
    const [type, value] = node;
    const nested = Array.isArray(value);
    const end = nested ? writeNodes(at + HEADER, value) : writeLeaf(at + HEADER, value as LeafValue);
    const padded = align(end);
    reserve(padded);
    for (let pad = end; pad < padded; pad++) scratch[pad] = 0;
    writeU16(at, end - at);
    writeU16(at + 2, nested ? type | NESTED : type);
    at = padded;
  }
  return at;
}

/** @returns its end */
function writeLeaf(at: number, value: LeafValue): number {
  switch (typeof value) {
    case 'number':
      reserve(at + 4);
      return scratch.writeInt32BE(value | 0, at);
    case 'bigint':
      reserve(at + 8);
      return scratch.writeBigUInt64BE(value, at);
    case 'string': {
      // At most three bytes of UTF-8 for each unit of UTF-16.
      reserve(at + 3 * value.length + 1);
      const end = at + scratch.write(value, at);
      scratch[end] = 0;
      return end + 1;
    }
    default:
      reserve(at + value.length);
      scratch.set(value, at);
      return at + value.length;
  }
}

function writeU16(at: number, value: number): void {
  scratch[at] = value & 0xff;
  scratch[at + 1] = value >> 8;
}
