import { addressBytes, addressFromBytes, type IpAddress } from '../net/address.ts';
import type { Interval } from './ring.ts';
import { FNV_OFFSET, fnv1a, KEY_BYTES, SlotTable, VALUE_BYTES, type SlotSource } from './slots.ts';

/**
 * What a network's store holds, for questions that would otherwise cost a look at every file: whose addresses, and which
 * are taken. Both live in one slot table:
 *
 *   owner   key: 1 | hash of the lease's text (15 bytes)          value: 4 or 16 | address | zeros
 *   page    key: 2 or 3 (family) | address without its low byte   value: one bit for each of its 256 addresses, 1 = taken
 *
 * Hashes may collide: an address found for an owner is a hint, to be confirmed by reading its lease.
 */
export class Catalog {
  readonly #table: SlotTable;

  constructor(source: SlotSource, used = 0) {
    this.#table = new SlotTable(source, used);
  }

  get used(): number {
    return this.#table.used;
  }

  get isCrowded(): boolean {
    return this.#table.isCrowded;
  }

  addressesOf(owner: string): IpAddress[] {
    return this.#table.values(ownerKeyBytes(owner)).flatMap((value) => {
      const address = addressFromBytes(value.subarray(1, 1 + (value[0] ?? 0)));
      return address === undefined ? [] : [address];
    });
  }

  /** @param owner undefined for what takes an address without being anybody's lease */
  add(address: IpAddress, owner: string | undefined): void {
    if (owner !== undefined) this.#table.add(ownerKeyBytes(owner), addressValue(address));
    this.#mark(address, true);
  }

  remove(address: IpAddress, owner: string | undefined): void {
    if (owner !== undefined) this.#table.remove(ownerKeyBytes(owner), addressValue(address));
    this.#mark(address, false);
  }

  isTaken(address: IpAddress): boolean {
    const bitmap = this.#page(address.family, address.value >> PAGE_BITS);
    return bitmap !== undefined && hasBit(bitmap, lowByte(address.value));
  }

  firstFree({ first, last }: Interval): IpAddress | undefined {
    const { family } = first;
    const lastPage = last.value >> PAGE_BITS;
    for (let page = first.value >> PAGE_BITS; page <= lastPage; page++) {
      const from = page === first.value >> PAGE_BITS ? lowByte(first.value) : 0;
      const to = page === lastPage ? lowByte(last.value) : 255;
      const free = firstClearBit(this.#page(family, page), from, to);
      if (free !== undefined) return { family, value: (page << PAGE_BITS) | BigInt(free) };
    }
    return undefined;
  }

  #page(family: IpAddress['family'], page: bigint): Uint8Array | undefined {
    return this.#table.values(pageKey(family, page))[0];
  }

  #mark(address: IpAddress, taken: boolean): void {
    const bit = lowByte(address.value);
    this.#table.update(pageKey(address.family, address.value >> PAGE_BITS), (before) => {
      const bitmap = before ?? new Uint8Array(VALUE_BYTES);
      const byte = bitmap[bit >> 3] ?? 0;
      bitmap[bit >> 3] = taken ? byte | (1 << (bit & 7)) : byte & ~(1 << (bit & 7));
      return bitmap.some((bits) => bits !== 0) ? bitmap : undefined;
    });
  }
}

const PAGE_BITS = 8n;

const OWNER = 1;
const PAGE = { ipv4: 2, ipv6: 3 } as const;

/** Four independent hashes; the first byte tells the kind. */
function ownerKeyBytes(owner: string): Uint8Array {
  const text = Buffer.from(owner);
  const key = new Uint8Array(KEY_BYTES);
  const view = new DataView(key.buffer);
  for (let lane = 0; lane < 4; lane++) view.setUint32(4 * lane, fnv1a(text, FNV_OFFSET + 0x9e3779b9 * lane));
  key[0] = OWNER;
  return key;
}

function pageKey(family: IpAddress['family'], page: bigint): Uint8Array {
  const key = new Uint8Array(KEY_BYTES);
  key[0] = PAGE[family];
  let rest = page;
  for (let at = KEY_BYTES - 1; rest > 0n; at--, rest >>= 8n) key[at] = Number(rest & 0xffn);
  return key;
}

function addressValue(address: IpAddress): Uint8Array {
  const value = new Uint8Array(VALUE_BYTES);
  const bytes = addressBytes(address);
  value[0] = bytes.length;
  value.set(bytes, 1);
  return value;
}

function lowByte(value: bigint): number {
  return Number(value & 0xffn);
}

function hasBit(bitmap: Uint8Array, bit: number): boolean {
  return ((bitmap[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0;
}

function firstClearBit(bitmap: Uint8Array | undefined, from: number, to: number): number | undefined {
  if (bitmap === undefined) return from;
  for (let bit = from; bit <= to; bit++) if (!hasBit(bitmap, bit)) return bit;
  return undefined;
}
