/**
 * IP addresses, prefixes and MAC addresses, parsed and formatted as by Go's `net` package, because the reference plugins' files, rules
 * and results contain that text: no leading zeros in IPv4, no zones, output lower-case and compressed, IPv4-mapped IPv6 treated as IPv4.
 * Parsers return undefined for invalid text; the caller, which knows its origin, reports the error.
 */
export type AddressFamily = 'ipv4' | 'ipv6';

export interface IpAddress {
  readonly family: AddressFamily;
  /** The address as an unsigned number, most significant byte first: 32 bits or 128. */
  readonly value: bigint;
}

/** An address with a prefix length. Host bits are kept: `10.1.2.3/24` is the address of an interface. */
export interface Cidr {
  readonly address: IpAddress;
  readonly prefix: number;
}

export function parseAddress(text: string): IpAddress | undefined {
  if (!text.includes(':')) {
    const value = parseIpv4(text);
    return value === undefined ? undefined : { family: 'ipv4', value };
  }
  const value = parseIpv6(text);
  return value === undefined ? undefined : unmapped(value);
}

/** `10.1.2.3/24`, `fd00::1/64`. As in Go, the length may have leading zeros, and that of a mapped address starts at /96. */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf('/');
  if (slash < 0) return undefined;
  const written = text.slice(0, slash);
  const address = parseAddress(written);
  const length = text.slice(slash + 1);
  if (address === undefined || !/^[0-9]{1,7}$/.test(length)) return undefined;
  const mappedBits = address.family === 'ipv4' && written.includes(':') ? 96 : 0;
  const prefix = Number(length) - mappedBits;
  return prefix < 0 || prefix > familyBits(address.family) ? undefined : { address, prefix };
}

export function formatAddress({ family, value }: IpAddress): string {
  return family === 'ipv4' ? formatIpv4(value) : formatIpv6(value);
}

export function formatCidr({ address, prefix }: Cidr): string {
  return `${formatAddress(address)}/${prefix}`;
}

/** `10.88.0.2/32` -> `10.88.0.2` */
export function withoutPrefixLength(address: string): string {
  return address.replace(/\/\d+$/, '');
}

/** The address as other programs print it; undefined for invalid text. */
export function canonicalAddress(text: string): string | undefined {
  const address = parseAddress(text);
  return address === undefined ? undefined : formatAddress(address);
}

/** 4 or 16 bytes in network order, as netlink attributes carry them. */
export function addressBytes({ family, value }: IpAddress): Uint8Array {
  const bytes = new Uint8Array(familyBits(family) / 8);
  let rest = value;
  for (let at = bytes.length - 1; at >= 0; at--, rest >>= 8n) bytes[at] = Number(rest & 0xffn);
  return bytes;
}

/** The inverse of {@link addressBytes}; undefined unless there are 4 or 16 bytes. Sixteen mapped bytes are an IPv4 address. */
export function addressFromBytes(bytes: Uint8Array): IpAddress | undefined {
  if (bytes.length !== 4 && bytes.length !== 16) return undefined;
  const value = bytes.reduce((number, byte) => (number << 8n) | BigInt(byte), 0n);
  return bytes.length === 4 ? { family: 'ipv4', value } : unmapped(value);
}

export function familyBits(family: AddressFamily): 32 | 128 {
  return family === 'ipv4' ? 32 : 128;
}

/** The prefix with its host bits cleared. */
export function networkOf(cidr: Cidr): Cidr {
  const { address, prefix } = cidr;
  // Nearly always: rules name single addresses.
  if (prefix === familyBits(address.family)) return cidr;
  const bits = hostBits(address.family, prefix);
  return { address: { family: address.family, value: address.value & ~bits }, prefix };
}

/** The first address of the network, `10.1.2.0` of `10.1.2.3/24`. */
export function firstAddress(cidr: Cidr): IpAddress {
  return networkOf(cidr).address;
}

/** The last address of the network: IPv4's broadcast address, all host bits set. */
export function lastAddress({ address, prefix }: Cidr): IpAddress {
  return { family: address.family, value: address.value | hostBits(address.family, prefix) };
}

export function containsAddress(cidr: Cidr, address: IpAddress): boolean {
  if (cidr.address.family !== address.family) return false;
  const bits = hostBits(address.family, cidr.prefix);
  return (cidr.address.value & ~bits) === (address.value & ~bits);
}

export function overlaps(a: Cidr, b: Cidr): boolean {
  return a.prefix <= b.prefix ? containsAddress(a, b.address) : containsAddress(b, a.address);
}

/** Order for sorting: IPv4 before IPv6, then by number. */
export function compareAddresses(a: IpAddress, b: IpAddress): -1 | 0 | 1 {
  if (a.family !== b.family) return a.family === 'ipv4' ? -1 : 1;
  if (a.value === b.value) return 0;
  return a.value < b.value ? -1 : 1;
}

export function sameAddress(a: IpAddress, b: IpAddress): boolean {
  return a.family === b.family && a.value === b.value;
}

/** `address` moved by `distance`; undefined past either end of the family. */
export function offsetAddress({ family, value }: IpAddress, distance: bigint): IpAddress | undefined {
  const moved = value + distance;
  return moved < 0n || moved >> BigInt(familyBits(family)) !== 0n ? undefined : { family, value: moved };
}

export function nextAddress(address: IpAddress): IpAddress | undefined {
  return offsetAddress(address, 1n);
}

/** 24 for `255.255.255.0`; undefined when invalid or not contiguous. */
export function maskToPrefix(mask: string): number | undefined {
  const parsed = parseAddress(mask);
  if (parsed === undefined) return undefined;
  const bits = familyBits(parsed.family);
  const binary = parsed.value.toString(2).padStart(bits, '0');
  const ones = binary.indexOf('0') < 0 ? bits : binary.indexOf('0');
  return binary.includes('1', ones) ? undefined : ones;
}

/** Go's IsGlobalUnicast: private ranges count; unspecified, broadcast, loopback, multicast and link-local do not. */
export function isGlobalUnicast(address: IpAddress): boolean {
  const excluded = address.family === 'ipv4' ? NOT_GLOBAL_IPV4 : NOT_GLOBAL_IPV6;
  return !excluded.some((cidr) => containsAddress(cidr, address));
}

export function isLoopback(address: IpAddress): boolean {
  return containsAddress(address.family === 'ipv4' ? constant('127.0.0.0/8') : constant('::1/128'), address);
}

/** Six bytes from `aa:bb:cc:dd:ee:ff`, `aa-bb-cc-dd-ee-ff` or `aabb.ccdd.eeff`; undefined for anything else. */
export function parseMac(text: string): Uint8Array | undefined {
  const byPairs = /^[0-9a-f]{2}([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}$/i;
  const byFours = /^[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}$/i;
  if (!byPairs.test(text) && !byFours.test(text)) return undefined;
  const digits = text.replaceAll(/[^0-9a-f]/gi, '');
  return Uint8Array.from({ length: 6 }, (_, at) => Number.parseInt(digits.slice(2 * at, 2 * at + 2), 16));
}

/** `aa:bb:cc:dd:ee:ff`, as the kernel's tools and CNI results print it. */
export function formatMac(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

const MAPPED = 0xffffn;

function unmapped(value: bigint): IpAddress {
  return value >> 32n === MAPPED
    ? { family: 'ipv4', value: value & 0xffff_ffffn }
    : { family: 'ipv6', value };
}

function hostBits(family: AddressFamily, prefix: number): bigint {
  return (1n << BigInt(familyBits(family) - prefix)) - 1n;
}

function parseIpv4(text: string): bigint | undefined {
  const parts = IPV4.exec(text);
  if (parts === null) return undefined;
  let value = 0;
  for (let at = 1; at <= 4; at++) {
    const byte = Number(parts[at]);
    if (byte > 255) return undefined;
    value = value * 256 + byte;
  }
  return BigInt(value);
}

const DECIMAL_BYTE = '(0|[1-9][0-9]{0,2})';
const IPV4 = new RegExp(`^${[DECIMAL_BYTE, DECIMAL_BYTE, DECIMAL_BYTE, DECIMAL_BYTE].join('\\.')}$`);

function parseIpv6(text: string): bigint | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = groupsOf(halves[0] ?? '', halves.length === 1);
  const tail = halves.length === 2 ? groupsOf(halves[1] ?? '', true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  // `::` stands for at least one group of zeros.
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const groups = [...head, ...new Array<number>(missing).fill(0), ...tail];
  return groups.reduce((value, group) => (value << 16n) | BigInt(group), 0n);
}

/** The 16-bit groups of one side of `::`; at the end of the text, the last two may be an IPv4 address. */
function groupsOf(text: string, atEnd: boolean): number[] | undefined {
  if (text === '') return [];
  const parts = text.split(':');
  const groups: number[] = [];
  for (const [at, part] of parts.entries()) {
    if (atEnd && at === parts.length - 1 && part.includes('.')) {
      const embedded = parseIpv4(part);
      if (embedded === undefined) return undefined;
      groups.push(Number(embedded >> 16n), Number(embedded & 0xffffn));
    } else if (/^[0-9a-f]{1,4}$/i.test(part)) {
      groups.push(Number.parseInt(part, 16));
    } else {
      return undefined;
    }
  }
  return groups;
}

function formatIpv4(value: bigint): string {
  return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join('.');
}

/** RFC 5952: the longest run of two or more zero groups (the first of equals) becomes `::`. */
function formatIpv6(value: bigint): string {
  const groups = Array.from({ length: 8 }, (_, at) => Number((value >> BigInt(112 - 16 * at)) & 0xffffn));
  let from = 0;
  let length = 0;
  for (let start = 0; start < 8; start++) {
    let end = start;
    while (end < 8 && groups[end] === 0) end++;
    if (end - start > length) [from, length] = [start, end - start];
  }
  const hex = groups.map((group) => group.toString(16));
  if (length < 2) return hex.join(':');
  return `${hex.slice(0, from).join(':')}::${hex.slice(from + length).join(':')}`;
}

function constant(text: string): Cidr {
  const cidr = parseCidr(text);
  if (cidr === undefined) throw new Error(`bad constant: ${text}`);
  return cidr;
}

const NOT_GLOBAL_IPV4 = [
  '0.0.0.0/32',
  '255.255.255.255/32',
  '127.0.0.0/8',
  '224.0.0.0/4',
  '169.254.0.0/16',
].map(constant);
const NOT_GLOBAL_IPV6 = ['::/128', '::1/128', 'ff00::/8', 'fe80::/10'].map(constant);
