/** Repeatable random values: the same seed gives the same ones (Tommy Ettinger's mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 <= x < 1 */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let x = this.#state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(values: readonly T[]): T {
    const value = values[this.below(values.length)];
    if (value === undefined && values.length === 0) throw new Error('nothing to pick from');
    return value as T;
  }
}

/** Numbers below a limit, for tests that need nothing else. */
export function randomBelow(seed: number): (limit: number) => number {
  const random = new Random(seed);
  return (limit) => random.below(limit);
}

/**
 * Runs `body` with a new seed, which a failure names; WEFT_SEED repeats one.
 */
export function withRandom(body: (random: Random) => void): void {
  const seed = Number(process.env['WEFT_SEED'] ?? Date.now() % 1_000_000_007);
  try {
    body(new Random(seed));
  } catch (error) {
    if (error instanceof Error) error.message += ` (repeat with WEFT_SEED=${seed})`;
    throw error;
  }
}
