/**
 * A hash table of fixed-size slots with open addressing, in memory or in a file, where each operation touches a few slots
 * however many there are. Keys may repeat: a table of owners has one entry an address.
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

  /** Beyond this searches get long: whoever fills the table makes a bigger one. */
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
    if (this.#used >= this.#source.capacity - 1) throw new RangeError('slot table is full');
    this.#write(
      this.#walk(key, () => false),
      key,
      value,
    );
    this.#used += 1;
  }

  /**
   * Changes the value of the key's first entry. `change` gets a copy of it, or undefined when there is no entry, and gives
   * the new one, or undefined for none.
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

  /** From the key's home to the slot where `stop` says so, or else the next empty one. */
  #walk(key: Uint8Array, stop: (slot: Uint8Array) => boolean): number {
    let at = this.#home(key);
    for (let step = 0; step < this.#source.capacity; step++, at = this.#after(at)) {
      const slot = this.#source.read(at);
      if (isEmpty(slot) || stop(slot)) return at;
    }
    throw new RangeError('slot table without an empty slot');
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

  /** Moves later entries of the run back over the gap where their home allows it, so that no search ends too early. */
  #closeGap(gap: number): void {
    for (let at = this.#after(gap); ; at = this.#after(at)) {
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

export const FNV_OFFSET = 0x811c9dc5;

/** FNV-1a, 32 bits, with a final mix so that the low bits depend on all of the input. */
export function fnv1a(bytes: Uint8Array, seed: number): number {
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
