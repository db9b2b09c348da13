/**
 * `npm test -- --thorough` disturbs every step and takes all rounds; without it a run takes a sample, another one each time, so that it
 * stays short. What a sample leaves out is no other kind of test, only more of the same.
 */
export const THOROUGH = process.env['WEFT_TEST_THOROUGH'] === '1';

/** How many of something this run takes. */
export function rounds(all: number, sample: number): number {
  return THOROUGH ? all : sample;
}

const SHARE = rounds(1, 3);
const FIRST = Math.floor(Math.random() * SHARE);

/** Every third of a list, beginning at another one in each run; all of it in a thorough run. */
export function sample<T>(all: readonly T[]): T[] {
  const taken = all.filter((_, at) => at % SHARE === FIRST);
  return taken.length === 0 ? [...all] : taken;
}
