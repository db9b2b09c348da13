export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** Ranges of ports, searched in logarithmic time. */
export class PortRanges {
  /** By first port; `last` is the greatest last port so far. */
  readonly #sorted: { readonly first: number; readonly last: number }[] = [];

  constructor(ranges: readonly PortRange[]) {
    let last = 0;
    for (const range of ranges.toSorted((one, other) => one.first - other.first)) {
      last = Math.max(last, range.last);
      this.#sorted.push({ first: range.first, last });
    }
  }

  /** The same ports in ranges that do not overlap. */
  *disjoint(): Generator<PortRange> {
    let next = 0;
    for (const { first, last } of this.#sorted) {
      if (last >= next) yield { first: Math.max(first, next), last };
      next = Math.max(next, last + 1);
    }
  }

  /** Whether one of the ranges contains all of these ports. */
  contains({ first, last }: PortRange): boolean {
    return this.#greatestLast(first) >= last;
  }

  /** Whether one of the ranges has one of these ports. */
  overlaps({ first, last }: PortRange): boolean {
    return this.#greatestLast(last) >= first;
  }

  /** The greatest last port of the ranges that begin at `first` or before; -1 when there is none. */
  #greatestLast(first: number): number {
    let [low, high] = [0, this.#sorted.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#sorted[middle]?.first ?? Infinity) <= first) low = middle + 1;
      else high = middle;
    }
    return this.#sorted[low - 1]?.last ?? -1;
  }
}
