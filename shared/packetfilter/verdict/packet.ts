/**
 * What is known of a packet, and of the registers of nf_tables while a rule is followed: a byte that is not known is `undefined`.
 */
import { addressBytes, parseAddress } from '../../net/address.ts';
import { ConntrackKey, MetaKey, PayloadBase } from '../nftables/expressions.ts';
import { PROTOCOLS, type Protocol } from '../ruleset.ts';

/** A packet as far as it is known; what is left out may have any value. */
export interface KnownPacket {
  readonly family: 'ip' | 'ip6';
  readonly inInterface?: string | undefined;
  readonly outInterface?: string | undefined;
  readonly source?: string | undefined;
  readonly destination?: string | undefined;
  readonly protocol?: Protocol | undefined;
  readonly destinationPort?: number | undefined;
  /** Of its connection. */
  readonly state: 'new' | 'established';
  /** Whether the connection's destination was translated (a published port); default false. */
  readonly translated?: boolean | undefined;
}

export type Ternary = 'yes' | 'no' | 'maybe';

export type Bytes = readonly (number | undefined)[];

/** What `meta` loads. */
export function metaOf(packet: KnownPacket, key: number): Bytes {
  switch (key) {
    case MetaKey.iifname:
      return nameBytes(packet.inInterface);
    case MetaKey.oifname:
      return nameBytes(packet.outInterface);
    case MetaKey.nfproto:
      return [packet.family === 'ip' ? NFPROTO_IPV4 : NFPROTO_IPV6];
    case MetaKey.protocol:
      return packet.family === 'ip' ? [0x08, 0x00] : [0x86, 0xdd];
    case MetaKey.l4proto:
      return [protocolNumber(packet)];
    default:
      return unknownBytes(LARGEST_VALUE);
  }
}

/** What `payload` loads. */
export function payloadOf(packet: KnownPacket, base: number, offset: number, length: number): Bytes {
  if (base === PayloadBase.network) return networkHeader(packet, offset + length).slice(offset);
  if (base !== PayloadBase.transport) return unknownBytes(length);
  const header: (number | undefined)[] = [...unknownBytes(Math.max(4, offset + length))];
  const { destinationPort: port } = packet;
  if (port !== undefined) header.splice(2, 2, port >> 8, port & 0xff);
  return header.slice(offset, offset + length);
}

/** What `ct` loads. */
export function conntrackOf(packet: KnownPacket, key: number): Bytes {
  if (key === ConntrackKey.state) return [STATE_BITS[packet.state], 0, 0, 0];
  // The other bits of the status (IPS_CONFIRMED, ...) differ from packet to packet.
  if (key === ConntrackKey.status)
    return packet.translated === true ? [undefined, undefined, undefined, undefined] : [0, 0, 0, 0];
  return unknownBytes(LARGEST_VALUE);
}

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

export function unknownBytes(length: number): Bytes {
  return Array.from({ length });
}

export function areKnown(bytes: Bytes): bytes is readonly number[] {
  return bytes.every((byte) => byte !== undefined);
}

/** Negative, 0 or positive as usual; undefined when what is known does not decide. */
export function compareBytes(left: Bytes, right: Bytes): number | undefined {
  const different = left.findIndex((byte, at) => byte !== right[at]);
  if (different < 0) return areKnown(left) ? 0 : undefined;
  const [a, b] = [left[different], right[different]];
  return a === undefined || b === undefined ? undefined : a - b;
}

/** Whether they differ for certain, although not every byte is known. */
export function differ(left: Bytes, right: Bytes): boolean {
  return left.some((byte, at) => byte !== undefined && right[at] !== undefined && byte !== right[at]);
}

const NFPROTO_IPV4 = 2;
const NFPROTO_IPV6 = 10;
/** NF_CT_STATE_BIT of linux/netfilter/nf_conntrack_common.h */
const STATE_BITS = { established: 2, new: 8 } as const;
const IFNAMSIZ = 16;
export const LARGEST_VALUE = 16;
/** struct ipv6hdr, the longer one. */
const NETWORK_HEADER_SIZE = 40;
/** Of all registers: NFT_REG_1 to NFT_REG_4. */
const SIZE = 64;

/** NFT_REG_1 (1) to NFT_REG_4 are 16 bytes each; NFT_REG32_00 (8) to _15 the same space in units of 4. */
function offsetOf(register: number): number {
  return register < 8 ? (register - 1) * 16 : (register - 8) * 4;
}

function nameBytes(name: string | undefined): Bytes {
  if (name === undefined) return unknownBytes(IFNAMSIZ);
  const bytes = Buffer.alloc(IFNAMSIZ);
  bytes.write(name, 0, IFNAMSIZ - 1);
  return [...bytes];
}

function protocolNumber({ protocol }: KnownPacket): number | undefined {
  return protocol === undefined ? undefined : PROTOCOLS[protocol];
}

function networkHeader(packet: KnownPacket, end: number): Bytes {
  const header: (number | undefined)[] = [...unknownBytes(Math.max(NETWORK_HEADER_SIZE, end))];
  const [protocol, source, destination] = packet.family === 'ip' ? [9, 12, 16] : [6, 8, 24];
  header[protocol] = protocolNumber(packet);
  put(header, source, packet.source);
  put(header, destination, packet.destination);
  return header.slice(0, end);
}

function put(header: (number | undefined)[], at: number, address: string | undefined): void {
  const parsed = address === undefined ? undefined : parseAddress(address);
  if (parsed === undefined) return;
  addressBytes(parsed).forEach((byte, index) => {
    header[at + index] = byte;
  });
}
