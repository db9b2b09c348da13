import {
  addressBytes,
  formatCidr,
  formatAddress,
  formatMac,
  parseAddress,
  parseCidr,
  parseMac,
  type AddressFamily,
  type Cidr,
  type IpAddress,
} from '../../net/address.ts';

/** Converts addresses between text and netlink's bytes. The text comes from validated input: an invalid one is a bug in the caller. */

/** linux/socket.h */
export const AF_UNSPEC = 0;
export const AF_INET = 2;
export const AF_BRIDGE = 7;
export const AF_INET6 = 10;

export function familyNumber(family: AddressFamily | undefined): number {
  if (family === undefined) return AF_UNSPEC;
  return family === 'ipv4' ? AF_INET : AF_INET6;
}

/** @throws TypeError */
export function requireAddress(text: string): IpAddress {
  return parseAddress(text) ?? refuse('an IP address', text);
}

/** @throws TypeError */
export function requireCidr(text: string): Cidr {
  return parseCidr(text) ?? refuse('an address with prefix length', text);
}

/** @throws TypeError */
export function requireMac(text: string): Buffer {
  return Buffer.from(parseMac(text) ?? refuse('a MAC address', text));
}

export function bytesOf(address: IpAddress): Buffer {
  return Buffer.from(addressBytes(address));
}

/** Canonical text of 4 or 16 bytes; an IPv4-mapped address stays an IPv6 address, as in the kernel. */
export function addressText(bytes: Buffer): string {
  return formatAddress(addressOf(bytes));
}

export function cidrText(bytes: Buffer, prefix: number): string {
  return formatCidr({ address: addressOf(bytes), prefix });
}

export function macText(bytes: Buffer | undefined): string | undefined {
  return bytes === undefined || bytes.length === 0 ? undefined : formatMac(bytes);
}

/** The unspecified address: a default route's destination, for which the kernel sends no attribute. */
export function anyAddress(family: number): Buffer {
  return Buffer.alloc(family === AF_INET ? 4 : 16);
}

function addressOf(bytes: Buffer): IpAddress {
  const value = BigInt(`0x${bytes.toString('hex')}`);
  return { family: bytes.length === 4 ? 'ipv4' : 'ipv6', value };
}

function refuse(expected: string, given: string): never {
  throw new TypeError(`expected ${expected}, got "${given}"`);
}
