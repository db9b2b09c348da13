import { addressBytes, parseAddress } from '../../net/address.ts';
import { MetaKey } from '../nftables/expressions.ts';
import { unknownBytes, type Bytes } from './registers.ts';

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
