import { addressBytes, addressFromBytes, type IpAddress } from '../net/address.ts';
import type { Interval } from './ranges.ts';

/**
 * An index of a network's lease files, so that a call does not read them all: the addresses of an owner, and which addresses are
 * taken. Both are in one slot table:
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

  /** @param owner undefined for a file that reserves an address without being a lease */
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

/** Four independent hashes; the first byte is replaced by the kind. */
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

/**
 * A hash table of fixed-size slots with open addressing, in memory or in a file. An operation reads a few slots, however many there
 * are. Keys may repeat: an owner has one entry per address.
 *
 *   slot   0               16                              48
 *          +---------------+-------------------------------+
 *          | key           | value                         |     a key of zeros: the slot is empty
 *          +---------------+-------------------------------+
 */
export const KEY_BYTES = 16;
export const VALUE_BYTES = 32;
export const SLOT_BYTES = KEY_BYTES + VALUE_BYTES;

/** Where slots are kept. `read` gives a copy or a view of SLOT_BYTES bytes; `write` takes as many. */
export interface SlotSource {
  /** A power of two. */
  readonly capacity: number;
  read(at: number): Uint8Array;
  write(at: number, slot: Uint8Array): void;
}

export class MemorySlots implements SlotSource {
  readonly capacity: number;
  readonly bytes: Uint8Array;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.bytes = new Uint8Array(capacity * SLOT_BYTES);
  }

  read(at: number): Uint8Array {
    return this.bytes.subarray(at * SLOT_BYTES, (at + 1) * SLOT_BYTES);
  }

  write(at: number, slot: Uint8Array): void {
    this.bytes.set(slot, at * SLOT_BYTES);
  }
}

export class SlotTable {
  readonly #source: SlotSource;
  #used: number;

  constructor(source: SlotSource, used: number) {
    this.#source = source;
    this.#used = used;
  }

  get used(): number {
    return this.#used;
  }

  /** Beyond this, searches get long and the caller builds a larger table. */
  get isCrowded(): boolean {
    return this.#used > this.#source.capacity * 0.7;
  }

  /** Values of all entries of this key, copied. */
  values(key: Uint8Array): Uint8Array[] {
    const found: Uint8Array[] = [];
    this.#walk(key, (slot) => {
      if (hasKey(slot, key)) found.push(slot.slice(KEY_BYTES));
      return false;
    });
    return found;
  }

  add(key: Uint8Array, value: Uint8Array): void {
    if (this.#used >= this.#source.capacity - 1) throw new DamagedTable();
    this.#write(
      this.#walk(key, () => false),
      key,
      value,
    );
    this.#used += 1;
  }

  /**
   * Changes the value of the key's first entry. `change` gets a copy of the value, or undefined if there is no entry, and returns
   * the new value, or undefined to remove the entry.
   */
  update(key: Uint8Array, change: (value: Uint8Array | undefined) => Uint8Array | undefined): void {
    let before: Uint8Array | undefined;
    const at = this.#walk(key, (slot) => {
      if (hasKey(slot, key)) before = slot.slice(KEY_BYTES);
      return before !== undefined;
    });
    const after = change(before);
    if (before === undefined && after !== undefined) {
      this.add(key, after);
      return;
    }
    if (before !== undefined && after !== undefined) {
      this.#write(at, key, after);
      return;
    }
    if (before !== undefined) this.#removeAt(at);
  }

  /** Removes one entry with exactly this key and value; false when there is none. */
  remove(key: Uint8Array, value: Uint8Array): boolean {
    let found = false;
    const at = this.#walk(key, (slot) => {
      found = hasKey(slot, key) && hasValue(slot, value);
      return found;
    });
    if (found) this.#removeAt(at);
    return found;
  }

  /** The first slot from the key's home slot on where `stop` returns true, or else the next empty one. */
  #walk(key: Uint8Array, stop: (slot: Uint8Array) => boolean): number {
    let at = this.#home(key);
    const limit = Math.min(this.#source.capacity, LONGEST_SEARCH);
    for (let step = 0; step < limit; step++, at = this.#after(at)) {
      const slot = this.#source.read(at);
      if (isEmpty(slot) || stop(slot)) return at;
    }
    throw new DamagedTable();
  }

  #write(at: number, key: Uint8Array, value: Uint8Array): void {
    const slot = new Uint8Array(SLOT_BYTES);
    slot.set(key);
    slot.set(value, KEY_BYTES);
    this.#source.write(at, slot);
  }

  #removeAt(at: number): void {
    this.#closeGap(at);
    this.#used -= 1;
  }

  /** Moves later entries of the run into the gap where their home slot allows it, so that no search ends too early. */
  #closeGap(gap: number): void {
    const limit = Math.min(this.#source.capacity, LONGEST_SEARCH);
    for (let at = this.#after(gap), step = 0; ; at = this.#after(at), step++) {
      if (step >= limit) throw new DamagedTable();
      const slot = this.#source.read(at).slice();
      if (isEmpty(slot)) break;
      const home = this.#home(slot.subarray(0, KEY_BYTES));
      if (this.#distance(home, at) >= this.#distance(gap, at)) {
        this.#source.write(gap, slot);
        gap = at;
      }
    }
    this.#source.write(gap, new Uint8Array(SLOT_BYTES));
  }

  #distance(from: number, to: number): number {
    return (to - from) & (this.#source.capacity - 1);
  }

  #after(at: number): number {
    return (at + 1) & (this.#source.capacity - 1);
  }

  #home(key: Uint8Array): number {
    return fnv1a(key, FNV_OFFSET) & (this.#source.capacity - 1);
  }
}

/** The table is full, or its contents are not those of a slot table: the caller builds a new one from the lease files. */
export class DamagedTable extends Error {
  override readonly name = 'DamagedTable';

  constructor() {
    super('slot table is full or damaged');
  }
}

/** At 70 % load, runs of used slots are far shorter. */
const LONGEST_SEARCH = 4096;

const FNV_OFFSET = 0x811c9dc5;

/** FNV-1a, 32 bits, with a final mix so that the low bits depend on all of the input. */
function fnv1a(bytes: Uint8Array, seed: number): number {
  let hash = seed;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}

function isEmpty(slot: Uint8Array): boolean {
  for (let at = 0; at < KEY_BYTES; at++) if (slot[at] !== 0) return false;
  return true;
}

function hasKey(slot: Uint8Array, key: Uint8Array): boolean {
  for (let at = 0; at < KEY_BYTES; at++) if (slot[at] !== key[at]) return false;
  return true;
}

function hasValue(slot: Uint8Array, value: Uint8Array): boolean {
  for (let at = 0; at < VALUE_BYTES; at++) if (slot[KEY_BYTES + at] !== value[at]) return false;
  return true;
}
