/**
 * A netlink attribute as data: its type (NFTA_*), and bytes, a NUL-terminated string, or nested attributes.
 * nf_tables numbers are big-endian throughout (struct nlattr's own header stays host-endian).
 */
export type AttributeNode = readonly [type: number, value: Uint8Array | string | readonly AttributeNode[]];

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
 */
export function encodeTree(nodes: readonly AttributeNode[]): Buffer {
  const out = Buffer.alloc(sizeOf(nodes));
  writeNodes(out, 0, nodes);
  return out;
}

/** Reads one level; nested levels are read by calling it on the value. Malformed lengths end the walk. */
export function* attributesOf(bytes: Buffer): Generator<readonly [type: number, value: Buffer]> {
  for (let at = 0; at + HEADER <= bytes.length;) {
    const length = bytes.readUInt16LE(at);
    if (length < HEADER || at + length > bytes.length) return;
    yield [bytes.readUInt16LE(at + 2) & TYPE_MASK, bytes.subarray(at + HEADER, at + length)];
    at += aligned(length);
  }
}

/** The first attribute of a type, at one level. */
export function attributeOf(bytes: Buffer, type: number): Buffer | undefined {
  for (const [found, value] of attributesOf(bytes)) if (found === type) return value;
  return undefined;
}

export function be32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

export function be64(value: bigint): Uint8Array {
  return Uint8Array.from({ length: 8 }, (_, index) => Number((value >> BigInt(56 - 8 * index)) & 0xffn));
}

/** A string without its NUL and whatever may follow it. */
export function textOf(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}

const HEADER = 4;
const NESTED = 0x8000;
const TYPE_MASK = 0x3fff;

function aligned(length: number): number {
  return (length + 3) & ~3;
}

function sizeOf(nodes: readonly AttributeNode[]): number {
  return nodes.reduce((total, [, value]) => total + aligned(HEADER + payloadSize(value)), 0);
}

function payloadSize(value: AttributeNode[1]): number {
  if (typeof value === 'string') return Buffer.byteLength(value) + 1;
  return value instanceof Uint8Array ? value.length : sizeOf(value);
}

function writeNodes(out: Buffer, start: number, nodes: readonly AttributeNode[]): void {
  let at = start;
  for (const [type, value] of nodes) {
    const length = HEADER + payloadSize(value);
    const nested = typeof value !== 'string' && !(value instanceof Uint8Array);
    out.writeUInt16LE(length, at);
    out.writeUInt16LE(nested ? type | NESTED : type, at + 2);
    if (typeof value === 'string') out.write(value, at + HEADER);
    else if (value instanceof Uint8Array) out.set(value, at + HEADER);
    else writeNodes(out, at + HEADER, value);
    at += aligned(length);
  }
}
