import * as expr from './expressions.ts';
import {
  type Cidr,
  addressBytes,
  lastAddress,
  networkOf,
  parseAddress,
  parseCidr,
  parseMac,
} from '../../net/address.ts';
import type { NftFamily, NftField, NftProtocol, NftRule, NftStatement, NftType } from './model.ts';
import { PROTOCOLS } from '../ruleset.ts';

/** Statements as the expressions that nft(8) makes of them; tests compare both. */

/** @throws Error for an invalid value in a plan: a bug, no invalid input */
export function encodeStatements(family: NftFamily, statements: readonly NftStatement[]): expr.Expression[] {
  const expressions: expr.Expression[] = [];
  let network: 'ipv4' | 'ipv6' | undefined;
  for (const statement of statements) {
    if (statement.kind === 'address' && family === 'inet') {
      const wanted = statement.cidr.includes(':') ? 'ipv6' : 'ipv4';
      // In an inet table the offset of an IPv4 address would also be read from IPv6 packets, so the family is tested first.
      if (network !== wanted) expressions.push(...encodeStatement({ kind: 'nfproto', family: wanted }));
      network = wanted;
    }
    expressions.push(...encodeStatement(statement));
  }
  return expressions;
}

/** NFTA_RULE_USERDATA: one TLV, type 0 (comment), length with NUL, text. What nft(8) and the reference look for. */
export function encodeComment(comment: string): Uint8Array {
  const text = Buffer.from(`${comment}\0`);
  if (text.length > MAX_COMMENT)
    throw new Error(
      `a rule's comment holds at most ${MAX_COMMENT - 1} bytes, got ${text.length - 1}: ${comment}`,
    );
  return Buffer.concat([Buffer.of(0, text.length), text]);
}

export function ruleExpressions(rule: NftRule): expr.Expression[] {
  return encodeStatements(rule.chain.table.family, rule.statements);
}

/** NFTNL_UDATA_COMMENT_MAXLEN */
const MAX_COMMENT = 128;
const CT_STATE = { invalid: 1, established: 2, related: 4, new: 8 } as const;
/** IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h */
const CT_STATUS_DNAT = 0x20;
/** RTN_LOCAL of linux/rtnetlink.h */
const ROUTE_LOCAL = 2;

// eslint-disable-next-line max-lines-per-function -- one case for each kind
function encodeStatement(statement: NftStatement): expr.Expression[] {
  switch (statement.kind) {
    case 'accept':
    case 'drop':
    case 'return':
      return [expr.verdict(expr.VerdictCode[statement.kind])];
    case 'jump':
    case 'goto':
      return [expr.verdict(expr.VerdictCode[statement.kind], statement.chain)];
    case 'address':
      return address(statement.side, statement.cidr, statement.not === true);
    case 'interface':
      return [
        expr.metaLoad(expr.MetaKey[statement.side]),
        expr.compare(interfaceName(statement.name), equality(statement.not)),
      ];
    case 'nfproto':
      return [
        expr.metaLoad(expr.MetaKey.nfproto),
        expr.compare(Uint8Array.of(familyNumber(statement.family))),
      ];
    case 'l4proto':
      return [
        expr.metaLoad(expr.MetaKey.l4proto),
        expr.compare(Uint8Array.of(protocolNumber(statement.protocol))),
      ];
    case 'dport':
      return [
        expr.payloadLoad(expr.PayloadBase.transport, 2, 2),
        ...between(be16(statement.first), be16(statement.last)),
      ];
    case 'ether saddr':
      return [
        expr.payloadLoad(expr.PayloadBase.link, 6, 6),
        expr.compare(required(parseMac(statement.mac), statement.mac)),
      ];
    case 'skuid':
      return userId(statement.first, statement.last);
    case 'ct state':
      return [
        expr.conntrackLoad('state'),
        ...anyBit(statement.states.reduce((bits, state) => bits | CT_STATE[state], 0)),
      ];
    case 'ct status dnat':
      return [expr.conntrackLoad('status'), ...anyBit(CT_STATUS_DNAT)];
    case 'fib daddr type local':
      return [expr.fibDestinationType(), expr.compare(host32(ROUTE_LOCAL))];
    case 'mark':
      return [
        expr.metaLoad(expr.MetaKey.mark),
        expr.bitwise(host32(statement.mask)),
        expr.compare(host32(statement.value)),
      ];
    case 'set mark bits':
      return [
        expr.metaLoad(expr.MetaKey.mark),
        expr.bitwise(host32(~statement.bits), host32(statement.bits)),
        expr.metaStore(expr.MetaKey.mark),
      ];
    case 'lookup':
      return [
        ...fieldLoad(statement.fields),
        expr.lookup(statement.set.name, {
          ...(statement.set.data === 'verdict' ? { destination: 0 } : {}),
          ...(statement.not === true ? { not: true } : {}),
        }),
      ];
    case 'counter':
      return [expr.counter()];
    case 'rawArgs':
      return [...statement.expressions];
    case 'dnat':
      return destinationNat(statement);
    case 'dnat map':
      return [
        ...fieldLoad(statement.fields),
        expr.lookup(statement.set.name, { destination: expr.REGISTER_1 }),
        mappedNat(statement.family),
      ];
    case 'redirect':
      return [expr.immediate(be16(statement.port), expr.REGISTER_1), expr.redirect(expr.REGISTER_1)];
    case 'masquerade':
      return [expr.masquerade()];
    case 'reject':
      return [expr.reject(statement.with)];
  }
}

/** Whole bytes of a prefix are loaded and compared; only a prefix within a byte needs a mask (as nft(8) and iptables-nft do). */
export function address(side: 'saddr' | 'daddr', cidr: string, not: boolean): expr.Expression[] {
  const network = networkOf(required(asCidr(cidr), cidr));
  const bytes = addressBytes(network.address);
  const offset = bytes.length === 4 ? { saddr: 12, daddr: 16 }[side] : { saddr: 8, daddr: 24 }[side];
  const load = (length: number): expr.Expression =>
    expr.payloadLoad(expr.PayloadBase.network, offset, length);
  if (network.prefix % 8 === 0 && network.prefix > 0) {
    const length = network.prefix / 8;
    return [load(length), expr.compare(bytes.subarray(0, length), equality(not))];
  }
  const mask = new Uint8Array(bytes.length).map(
    (_, index) => 0xff00 >> Math.min(8, Math.max(0, network.prefix - 8 * index)),
  );
  return [load(bytes.length), expr.bitwise(mask), expr.compare(bytes, equality(not))];
}

export function be16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value);
}

/** Marks, user ids and flags are numbers of the host: compared in its own byte order. */
export function host32(value: number): Uint8Array {
  return Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);
}

function between(first: Uint8Array, last: Uint8Array): expr.Expression[] {
  if (Buffer.compare(first, last) === 0) return [expr.compare(first)];
  return [expr.compare(first, expr.CompareOp.gte), expr.compare(last, expr.CompareOp.lte)];
}

function userId(first: number, last: number): expr.Expression[] {
  const load = expr.metaLoad(expr.MetaKey.skuid);
  if (first === last) return [load, expr.compare(host32(first))];
  const big = (value: number): Uint8Array => host32(value).reverse();
  return [load, expr.hostToNetwork(4), ...between(big(first), big(last))];
}

function anyBit(bits: number): expr.Expression[] {
  return [expr.bitwise(host32(bits)), expr.compare(host32(0), expr.CompareOp.neq)];
}

function destinationNat(statement: NftStatement & { kind: 'dnat' }): expr.Expression[] {
  const target = addressBytes(required(parseAddress(statement.address), statement.address));
  const expressions = [expr.immediate(target, expr.REGISTER_1)];
  const family = familyNumber(statement.family);
  const { port } = statement;
  if (port === undefined) return [...expressions, expr.destinationNat(family, { address: expr.REGISTER_1 })];
  expressions.push(expr.immediate(be16(port.first), expr.REGISTER_2));
  if (port.first === port.last) {
    return [
      ...expressions,
      expr.destinationNat(family, { address: expr.REGISTER_1, port: [expr.REGISTER_2, expr.REGISTER_2] }),
    ];
  }
  expressions.push(expr.immediate(be16(port.last), expr.REGISTER_3));
  return [
    ...expressions,
    expr.destinationNat(family, { address: expr.REGISTER_1, port: [expr.REGISTER_2, expr.REGISTER_3] }),
  ];
}

/** The map's data begins at register 1, each field in complete words: the address, then the port. */
function mappedNat(family: 'ip' | 'ip6'): expr.Expression {
  const port = expr.REGISTER_WORD_0 + wordsOf(family === 'ip' ? 'ipv4_addr' : 'ipv6_addr');
  return expr.destinationNat(familyNumber(family), { address: expr.REGISTER_1, port: [port, port] });
}

function equality(not: boolean | undefined): number {
  return not === true ? expr.CompareOp.neq : expr.CompareOp.eq;
}

/** IFNAMSIZ bytes, padded with zeros: a shorter value would match every name with this prefix. */
function interfaceName(name: string): Uint8Array {
  const bytes = Buffer.alloc(16);
  bytes.write(name);
  return bytes;
}

/** NFPROTO_IPV4, NFPROTO_IPV6 */
function familyNumber(family: 'ip' | 'ip6' | 'ipv4' | 'ipv6'): number {
  return family === 'ip' || family === 'ipv4' ? 2 : 10;
}

function asCidr(text: string): Cidr | undefined {
  const single = parseAddress(text);
  return single === undefined
    ? parseCidr(text)
    : { address: single, prefix: single.family === 'ipv4' ? 32 : 128 };
}

function required<T>(value: T | undefined, text: string): T {
  if (value === undefined) throw new Error(`invalid value in a plan: ${JSON.stringify(text)}`);
  return value;
}

/** Loads the fields of a key, each in complete words of 4 bytes, from register 1 on. */
function fieldLoad(fields: readonly NftField[]): expr.Expression[] {
  let word = 0;
  return fields.map((field) => {
    // The kernel lists a word that begins one of the 16-byte registers as that register.
    const register = word % 4 === 0 ? expr.REGISTER_1 + word / 4 : expr.REGISTER_WORD_0 + word;
    word += wordsOf(FIELD_TYPES[field]);
    return loadOne(field, register);
  });
}

/** Length of a value in a concatenation, in words of 4 bytes. */
export function wordsOf(type: NftType): number {
  return Math.ceil(TYPES[type].bytes / 4);
}

/** NFTA_SET_KEY_TYPE: nft's numbers, six bits a field; unused by the kernel, needed by `nft list`. */
export function typeNumber(types: readonly NftType[]): number {
  return types.reduce((number, type) => number * 64 + TYPES[type].number, 0);
}

/** Bytes of a key: a single field has its own length; in a concatenation every field fills complete words. */
export function keyLength(types: readonly NftType[]): number {
  const [only] = types;
  if (types.length === 1 && only !== undefined) return TYPES[only].bytes;
  return types.reduce((bytes, type) => bytes + 4 * wordsOf(type), 0);
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

/** Both ends of an interval; `after` is excluded, and undefined if the interval ends at the largest value. */
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
