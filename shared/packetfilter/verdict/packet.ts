import { addressBytes, parseAddress } from '../../net/address.ts';
import { MetaKey } from '../nftables/expressions.ts';

/** A packet as far as it is known; what is left out may be anything. */
export interface KnownPacket {
  readonly family: 'ip' | 'ip6';
  readonly inInterface?: string | undefined;
  readonly outInterface?: string | undefined;
  readonly source?: string | undefined;
  readonly destination?: string | undefined;
  /** Of its connection, which nobody has translated. */
  readonly state: 'new' | 'established';
}

/** What `meta` loads; undefined bytes for what is not known. */
export function metaOf(packet: KnownPacket, key: number | undefined): Bytes {
  switch (key) {
    case MetaKey.iifname:
      return nameBytes(packet.inInterface);
    case MetaKey.oifname:
      return nameBytes(packet.outInterface);
    case MetaKey.nfproto:
      return [packet.family === 'ip' ? NFPROTO_IPV4 : NFPROTO_IPV6];
    case MetaKey.protocol:
      return packet.family === 'ip' ? [0x08, 0x00] : [0x86, 0xdd];
    default:
      return unknownBytes(LARGEST);
  }
}

/** A part of the network header. */
export function headerOf(packet: KnownPacket, offset: number, length: number): Bytes {
  const header: (number | undefined)[] = [...unknownBytes(Math.max(HEADER, offset + length))];
  const [source, destination] = packet.family === 'ip' ? [12, 16] : [8, 24];
  put(header, source, packet.source);
  put(header, destination, packet.destination);
  return header.slice(offset, offset + length);
}

/** What `ct` loads: 0 is the state as a bit, 2 the status. */
export function conntrackOf(packet: KnownPacket, key: number | undefined): Bytes {
  if (key === 0) return [STATE_BITS[packet.state], 0, 0, 0];
  return key === 2 ? [0, 0, 0, 0] : unknownBytes(LARGEST);
}

const NFPROTO_IPV4 = 2;
const NFPROTO_IPV6 = 10;
/** NF_CT_STATE_BIT of linux/netfilter/nf_conntrack_common.h */
const STATE_BITS = { established: 2, new: 8 } as const;
const IFNAMSIZ = 16;
const LARGEST = 16;
/** Of IPv6, the longer one. */
const HEADER = 40;

function nameBytes(name: string | undefined): Bytes {
  if (name === undefined) return unknownBytes(IFNAMSIZ);
  const bytes = Buffer.alloc(IFNAMSIZ);
  bytes.write(name, 0, IFNAMSIZ - 1);
  return [...bytes];
}

function put(header: (number | undefined)[], at: number, address: string | undefined): void {
  const parsed = address === undefined ? undefined : parseAddress(address);
  if (parsed === undefined) return;
  addressBytes(parsed).forEach((byte, index) => {
    header[at + index] = byte;
  });
}

/** The registers of nf_tables while a rule is followed by hand: 64 bytes, of which each is known or not. */

/** Bytes of which some may not be known. */
export type Bytes = readonly (number | undefined)[];

export class Registers {
  readonly #bytes: (number | undefined)[] = Array.from({ length: SIZE });

  read(register: number, length: number): Bytes {
    const at = offsetOf(register);
    return this.#bytes.slice(at, at + length);
  }

  write(register: number, value: Bytes): void {
    value.forEach((byte, at) => {
      this.#bytes[offsetOf(register) + at] = byte;
    });
  }
}

/** Bytes of which nothing is known. */
export function unknownBytes(length: number): Bytes {
  return Array.from({ length });
}

export function areKnown(bytes: Bytes): bytes is readonly number[] {
  return bytes.every((byte) => byte !== undefined);
}

/** How what is known of two values compares: negative, 0 and positive as usual, undefined when it cannot be told. */
export function compareBytes(left: Bytes, right: Bytes): number | undefined {
  const different = left.findIndex((byte, at) => byte !== right[at]);
  if (different < 0) return areKnown(left) ? 0 : undefined;
  const [a, b] = [left[different], right[different]];
  return a === undefined || b === undefined ? undefined : a - b;
}

/** Whether they are surely different, though not everything is known of them. */
export function differ(left: Bytes, right: Bytes): boolean {
  return left.some((byte, at) => byte !== undefined && right[at] !== undefined && byte !== right[at]);
}

const SIZE = 64;

/** NFT_REG_1 (1) to NFT_REG_4 are 16 bytes each; NFT_REG32_00 (8) to _15 the same space in words. */
function offsetOf(register: number): number {
  return register < 8 ? (register - 1) * 16 : (register - 8) * 4;
}
