import { AttrStream, type StreamData } from 'netlink/dist/structs.js';
import { KernelError } from '../errno.ts';

/**
 * Netlink attributes (linux/netlink.h): encoded by the npm package `netlink`, decoded here.
 *
 *    0               2               4                    4 + length of payload
 *    +---------------+---------------+--------------------+- - - - - - - - -+
 *    | length, both  | N O   type    | payload            | zeros up to a   |
 *    | header + payl.|               |                    | multiple of 4   |
 *    +---------------+---------------+--------------------+- - - - - - - - -+
 *    N = 0x8000 the payload is attributes itself, O = 0x4000 network byte order; numbers in host order (always little
 *    endian: the suite is built for x64 and arm64)
 */

/** Or'ed to a type: the payload is attributes. */
export const NESTED = 0x8000;
/** Or'ed to a type: the payload is in network byte order. */
export const NETWORK_ORDER = 0x4000;
const TYPE_MASK = 0x3fff;
const HEADER = 4;

/**
 * The package's stream without its masking of types, so that NESTED can be set, and with nested payloads padded to their end as iproute2
 * does. Attributes older than the flag are sent without it, again as iproute2 does. But without it the kernel reads IFLA_PROTINFO as one
 * byte with another meaning (the port's state), and refuses newer attributes.
 */
export class AttributeStream extends AttrStream {
  #length = 0;

  override emit(data: StreamData): void {
    if (data instanceof Uint8Array) this.#length += data.length;
    super.emit(data);
  }

  override push(type: number, data: StreamData): void {
    const before = this.bufs.length;
    super.push(type, typeof data === 'function' ? this.#padded(data) : data);
    // Padding of the previous attribute may come first; it has at most 3 bytes, a header always 4.
    const first = this.bufs[before];
    const header = first !== undefined && first.length < HEADER ? this.bufs[before + 1] : first;
    if (header?.length !== HEADER) throw new Error('netlink package: attribute without header');
    new DataView(header.buffer, header.byteOffset).setUint16(2, type, true);
  }

  /** Everything pushed so far, padded to a multiple of 4. */
  bytes(): Buffer {
    return Buffer.concat(this.bufs, align(this.#length));
  }

  #padded(nested: (out: AttrStream) => unknown): (out: AttrStream) => void {
    return (out) => {
      nested(out);
      this.emit(Buffer.alloc(align(this.#length) - this.#length));
    };
  }
}

/** The bytes of a request's body: what `fill` pushes or emits. */
export function encode(fill: (out: AttributeStream) => void): Buffer {
  const out = new AttributeStream();
  fill(out);
  return out.bytes();
}

/** Attributes of one level, including unknown types. Payloads are extracted on demand. */
export class Attributes {
  readonly #bytes: Buffer;
  /** Offset of each type's header. */
  readonly #headers = new Map<number, number>();

  /**
   * @param bytes attributes from `start` to the end
   * @throws KernelError EBADMSG when a length does not fit
   */
  constructor(bytes: Buffer, start = 0) {
    this.#bytes = bytes;
    for (let at = start; at + HEADER <= bytes.length;) {
      this.#headers.set(uint16At(bytes, at + 2) & TYPE_MASK, at);
      at += align(lengthAt(bytes, at));
    }
  }

  /** The payload; of several attributes with one type the last, as in the kernel. */
  get(type: number): Buffer | undefined {
    const at = this.#headers.get(type);
    return at === undefined ? undefined : this.#bytes.subarray(at + HEADER, at + lengthAt(this.#bytes, at));
  }

  types(): number[] {
    return [...this.#headers.keys()];
  }

  u8(type: number): number | undefined {
    return this.#sized(type, 1)?.readUInt8();
  }

  u16(type: number): number | undefined {
    return this.#sized(type, 2)?.readUInt16LE();
  }

  /** In network byte order, as all numbers of netfilter. */
  u16be(type: number): number | undefined {
    return this.#sized(type, 2)?.readUInt16BE();
  }

  u32(type: number): number | undefined {
    return this.#sized(type, 4)?.readUInt32LE();
  }

  i32(type: number): number | undefined {
    return this.#sized(type, 4)?.readInt32LE();
  }

  u32be(type: number): number | undefined {
    return this.#sized(type, 4)?.readUInt32BE();
  }

  /** Up to the first zero: the kernel's strings end with one, but need not. */
  text(type: number): string | undefined {
    const payload = this.get(type);
    if (payload === undefined) return undefined;
    const end = payload.indexOf(0);
    return payload.toString('utf8', 0, end < 0 ? payload.length : end);
  }

  nested(type: number): Attributes | undefined {
    const payload = this.get(type);
    return payload === undefined ? undefined : new Attributes(payload);
  }

  #sized(type: number, size: number): Buffer | undefined {
    const payload = this.get(type);
    if (payload === undefined || payload.length >= size) return payload;
    throw new KernelError('netlink answer', EBADMSG, {
      detail: `attribute ${type} has ${payload.length} bytes, expected ${size}`,
    });
  }
}

/** Attributes in order, with repetitions: for lists such as bridge VLANs, whose entries have the same type. */
export function listAttributes(bytes: Buffer): { type: number; payload: Buffer }[] {
  const list: { type: number; payload: Buffer }[] = [];
  for (let at = 0; at + HEADER <= bytes.length;) {
    const length = lengthAt(bytes, at);
    list.push({
      type: bytes.readUInt16LE(at + 2) & TYPE_MASK,
      payload: bytes.subarray(at + HEADER, at + length),
    });
    at += align(length);
  }
  return list;
}

/** Next multiple of 4. */
export function align(length: number): number {
  return (length + 3) & ~3;
}

const EBADMSG = 74;

function lengthAt(bytes: Buffer, at: number): number {
  const length = uint16At(bytes, at);
  if (length >= HEADER && at + length <= bytes.length) return length;
  const detail = `attribute at ${at} claims ${length} bytes of ${bytes.length - at}`;
  throw new KernelError('netlink answer', EBADMSG, { detail });
}

/** Faster than readUInt16LE, whose checks dominate in code that is not optimized yet, as in a short plugin call. */
export function uint16At(bytes: Buffer, at: number): number {
  return (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8);
}
