import { formatMac, parseMac } from '../../shared/net/address.ts';
import { randomBytes } from '../../shared/kernel/libc.ts';

/** What an operator must write, for messages. */
export const MAC_RULE = 'six bytes in hexadecimal of one station are needed (not multicast, not all zero)';

/**
 * The MAC address of one station in its canonical text.
 * @returns undefined for what is none: other text, a group address, all zeros
 */
export function stationMac(text: string): string | undefined {
  const bytes = parseMac(text);
  if (bytes === undefined || isGroup(bytes) || bytes.every((byte) => byte === 0)) return undefined;
  return formatMac(bytes);
}

export function isZeroMac(mac: string | undefined): boolean {
  return mac === undefined || /^[0:]+$/.test(mac);
}

/** A MAC of nobody's: locally administered, as IEEE 802c wants it of made-up ones. */
export function randomMac(): string {
  return localMac(randomBytes(6));
}

/** Six bytes turned into a locally administered station address; 46 of their 48 bits stay. */
export function localMac(bytes: Uint8Array): string {
  const [first = 0, ...rest] = bytes.subarray(0, 6);
  return formatMac(Uint8Array.of((first & 0xfc) | 0x02, ...rest));
}

function isGroup(bytes: Uint8Array): boolean {
  return ((bytes[0] ?? 0) & 1) === 1;
}
