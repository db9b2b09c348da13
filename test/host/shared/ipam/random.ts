/**
 * Random numbers that can be had again: a failing test names its seed, and WEFT_SEED repeats it.
 */
export function withRandom(body: (random: () => number) => void): void {
  const seed = Number(process.env['WEFT_SEED'] ?? Date.now() % 1_000_000_007);
  try {
    body(mulberry32(seed));
  } catch (error) {
    if (error instanceof Error) error.message += ` (repeat with WEFT_SEED=${seed})`;
    throw error;
  }
}

/** Tommy Ettinger's mulberry32: 32 bits of state, good enough to choose test cases. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
