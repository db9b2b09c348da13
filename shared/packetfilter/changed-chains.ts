import type { Rules } from './rules.ts';

type Chains = ReadonlyMap<string, Rules>;

/**
 * A table's chains with changes laid over them. What is underneath is looked at only where somebody asks: it may be a table
 * of ten thousand chains that is read from the kernel piece by piece.
 */
export class ChangedChains implements Chains {
  /** What lies above; undefined: deleted. */
  readonly touched: Map<string, Rules | undefined>;
  readonly #base: Chains;

  static over(chains: Chains): ChangedChains {
    return chains instanceof ChangedChains
      ? new ChangedChains(chains.#base, new Map(chains.touched))
      : new ChangedChains(chains, new Map());
  }

  /** Use {@link ChangedChains.over}. */
  private constructor(base: Chains, touched: Map<string, Rules | undefined>) {
    this.#base = base;
    this.touched = touched;
  }

  get size(): number {
    return [...this.keys()].length;
  }

  has(chain: string): boolean {
    return this.touched.has(chain) ? this.touched.get(chain) !== undefined : this.#base.has(chain);
  }

  get(chain: string): Rules | undefined {
    return this.touched.has(chain) ? this.touched.get(chain) : this.#base.get(chain);
  }

  set(chain: string, rules: Rules): void {
    this.touched.set(chain, rules);
  }

  delete(chain: string): void {
    this.touched.set(chain, undefined);
  }

  *keys(): MapIterator<string> {
    for (const chain of this.#base.keys()) if (this.has(chain)) yield chain;
    for (const [chain, entries] of this.touched)
      if (entries !== undefined && !this.#base.has(chain)) yield chain;
  }

  *entries(): MapIterator<[string, Rules]> {
    for (const chain of this.keys()) yield [chain, this.get(chain) ?? []];
  }

  *values(): MapIterator<Rules> {
    for (const [, entries] of this.entries()) yield entries;
  }

  [Symbol.iterator](): MapIterator<[string, Rules]> {
    return this.entries();
  }

  forEach(visit: (rules: Rules, chain: string, map: Chains) => void): void {
    for (const [chain, entries] of this.entries()) visit(entries, chain, this);
  }
}
