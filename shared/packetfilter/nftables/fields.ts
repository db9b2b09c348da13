/** Fields of packets as keys of sets and maps: how each is loaded, and how its values are written. */
import { PROTOCOLS } from '../protocols.ts';
import { addressBytes, parseAddress, parseCidr, lastAddress, networkOf } from '../../net/address.ts';
import * as expr from './expressions.ts';
import type { NftField, NftProtocol, NftType } from './model.ts';

/** Loads fields one behind the other, each in whole words of 4 bytes, from register 1 on. */
export function fieldLoad(fields: readonly NftField[]): expr.Expression[] {
  let word = 0;
  return fields.map((field) => {
    // A word that begins one of the large registers is that register: what the kernel lists, whatever it was given.
    const register = word % 4 === 0 ? expr.REGISTER_1 + word / 4 : expr.REGISTER_WORD_0 + word;
    word += wordsOf(FIELD_TYPES[field]);
    return loadOne(field, register);
  });
}

/** Length of a value in a concatenation, in words of 4 bytes. */
export function wordsOf(type: NftType): number {
  return Math.ceil(TYPES[type].bytes / 4);
}

/** NFTA_SET_KEY_TYPE: nft's own numbers, six bits a field; meaningless to the kernel, needed by `nft list`. */
export function typeNumber(types: readonly NftType[]): number {
  return types.reduce((number, type) => number * 64 + TYPES[type].number, 0);
}

/** Bytes of a key: a lone field has its own length, in a concatenation every field fills whole words. */
export function keyLength(types: readonly NftType[]): number {
  const [only] = types;
  if (types.length === 1 && only !== undefined) return TYPES[only].bytes;
  return types.reduce((bytes, type) => bytes + 4 * wordsOf(type), 0);
}

export function typeBytes(type: NftType): number {
  return TYPES[type].bytes;
}

/** The key as the kernel stores it. */
export function encodeKey(types: readonly NftType[], values: readonly string[]): Uint8Array {
  if (types.length !== values.length)
    throw new Error(`a key of ${types.join(' . ')} cannot be ${values.join(' . ')}`);
  const parts = types.map((type, index) => {
    const bytes = encodeValue(type, values[index] ?? '');
    if (types.length === 1) return bytes;
    const padded = new Uint8Array(4 * wordsOf(type));
    padded.set(bytes);
    return padded;
  });
  return Buffer.concat(parts);
}

/** Both ends of an interval, the end excluded as the kernel has it; undefined when it runs to the end of the space. */
export function encodeInterval(
  type: NftType,
  value: string,
): { first: Uint8Array; after: Uint8Array | undefined } {
  const [first, last] = intervalEnds(type, value);
  return { first, after: successor(last) };
}

export function protocolNumber(protocol: NftProtocol): number {
  return PROTOCOLS[protocol];
}

/** Numbers are nft's datatypes (TYPE_IPADDR and so on). */
const TYPES: Readonly<Record<NftType, { number: number; bytes: number }>> = {
  ipv4_addr: { number: 7, bytes: 4 },
  ipv6_addr: { number: 8, bytes: 16 },
  inet_proto: { number: 12, bytes: 1 },
  inet_service: { number: 13, bytes: 2 },
  ifname: { number: 41, bytes: 16 },
};

const FIELD_TYPES: Readonly<Record<NftField, NftType>> = {
  'ip saddr': 'ipv4_addr',
  'ip daddr': 'ipv4_addr',
  'ip6 saddr': 'ipv6_addr',
  'ip6 daddr': 'ipv6_addr',
  'meta l4proto': 'inet_proto',
  'th dport': 'inet_service',
  iifname: 'ifname',
  oifname: 'ifname',
};

/** Offsets into the network header. */
const ADDRESS_OFFSETS = { 'ip saddr': 12, 'ip daddr': 16, 'ip6 saddr': 8, 'ip6 daddr': 24 } as const;

function loadOne(field: NftField, register: number): expr.Expression {
  switch (field) {
    case 'meta l4proto':
      return expr.metaLoad(expr.MetaKey.l4proto, register);
    case 'iifname':
    case 'oifname':
      return expr.metaLoad(expr.MetaKey[field], register);
    case 'th dport':
      return expr.payloadLoad(expr.PayloadBase.transport, 2, 2, register);
    default:
      return expr.payloadLoad(
        expr.PayloadBase.network,
        ADDRESS_OFFSETS[field],
        TYPES[FIELD_TYPES[field]].bytes,
        register,
      );
  }
}

function encodeValue(type: NftType, value: string): Uint8Array {
  const bytes = valueBytes(type, value);
  if (bytes?.length !== TYPES[type].bytes) throw new Error(`${JSON.stringify(value)} is no ${type}`);
  return bytes;
}

function valueBytes(type: NftType, value: string): Uint8Array | undefined {
  switch (type) {
    case 'ipv4_addr':
    case 'ipv6_addr': {
      const parsed = parseAddress(value);
      return parsed === undefined ? undefined : addressBytes(parsed);
    }
    case 'inet_proto':
      return value in PROTOCOLS ? Uint8Array.of(PROTOCOLS[value as NftProtocol]) : undefined;
    case 'inet_service':
      return /^\d{1,5}$/.test(value) && Number(value) <= 0xffff
        ? Uint8Array.of(Number(value) >> 8, Number(value))
        : undefined;
    case 'ifname': {
      const name = Buffer.alloc(16);
      return name.write(value) < 16 ? name : undefined;
    }
  }
}

function intervalEnds(type: NftType, value: string): [Uint8Array, Uint8Array] {
  const cidr = parseCidr(value);
  if (cidr !== undefined) return [addressBytes(networkOf(cidr).address), addressBytes(lastAddress(cidr))];
  const [first = value, last = first] = value.split('-');
  return [encodeValue(type, first), encodeValue(type, last)];
}

function successor(bytes: Uint8Array): Uint8Array | undefined {
  const next = Uint8Array.from(bytes);
  for (let index = next.length - 1; index >= 0; index--) {
    next[index] = ((next[index] ?? 0) + 1) & 0xff;
    if (next[index] !== 0) return next;
  }
  return undefined;
}
