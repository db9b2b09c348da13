import type { Family } from '../ruleset.ts';
import { LAYOUTS, PART_DATA, type Layout } from './layout.ts';

/**
 * A table's entries for looking at thousands of them in a process that has just started: there, an element of a typed array costs a
 * tenth of what Buffer's methods cost. Entries and their parts begin at multiples of 8 (XT_ALIGN).
 */
export class BlobView {
  readonly family: Family;
  readonly layout: Layout;
  readonly entries: Buffer;
  /** Names of chains by the offset of their first rule: where jumps lead. */
  readonly heads: ReadonlyMap<number, string>;
  readonly #halves: Uint16Array;
  readonly #words: Int32Array;

  constructor(family: Family, entries: Buffer, heads: ReadonlyMap<number, string>) {
    const { buffer, byteOffset, length } = entries;
    this.family = family;
    this.layout = LAYOUTS[family];
    this.entries = entries;
    this.heads = heads;
    this.#halves = new Uint16Array(buffer, byteOffset, length >> 1);
    this.#words = new Int32Array(buffer, byteOffset, length >> 2);
  }

  /** The 16-bit number at an even offset. */
  half(at: number): number {
    return this.#halves[at >> 1] ?? 0;
  }

  /** Offset of the entry behind this one. */
  next(entry: number): number {
    return entry + (this.#halves[(entry + this.layout.nextOffset) >> 1] ?? 0);
  }

  target(entry: number): number {
    return entry + (this.#halves[(entry + this.layout.targetOffset) >> 1] ?? 0);
  }

  /** The verdict of a standard target, which has no name: an offset, or a negative number; undefined for any other target. */
  verdict(entry: number): number | undefined {
    const target = this.target(entry);
    return this.#halves[(target + 2) >> 1] === 0 ? this.#words[(target + PART_DATA) >> 2] : undefined;
  }

  setVerdict(entry: number, verdict: number): void {
    this.#words[(this.target(entry) + PART_DATA) >> 2] = verdict;
  }

  /** Whether the entry is of the target ERROR: such a one begins each chain of somebody's making, and ends the table. */
  isHead(entry: number): boolean {
    const name = (this.target(entry) + 2) >> 1;
    return this.#halves[name] === ER && this.#halves[name + 1] === RO && this.#halves[name + 2] === R_AND_NUL;
  }
}

/** "ERROR" with its NUL, two bytes at a time. */
const ER = 0x5245;
const RO = 0x4f52;
const R_AND_NUL = 0x52;
