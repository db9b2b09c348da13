/** Whole-process timing: from fork and exec to the reaped exit. */
import { spawnSync } from 'node:child_process';

/**
 * @typedef {object} Candidate
 * @property {string} name
 * @property {string} file
 * @property {readonly string[]} [args]
 * @property {Readonly<Record<string, string>>} [env]
 * @property {string} [input]
 * @property {number} [expected]   exit code; 0 when left out
 */

/**
 * Runs the candidates turn by turn, so that a machine that slows down slows all of them.
 * @param {readonly Candidate[]} candidates
 * @param {number} rounds
 * @returns {Map<string, number[]>} milliseconds of each round, by name
 */
export function race(candidates, rounds) {
  /** @type {Map<string, number[]>} */
  const times = new Map(candidates.map(({ name }) => [name, []]));
  for (let round = -1; round < rounds; round += 1) {
    for (const candidate of candidates) {
      const milliseconds = runOnce(candidate);
      // The first round only warms the page cache.
      if (round >= 0) times.get(candidate.name)?.push(milliseconds);
    }
  }
  return times;
}

/** @param {readonly number[]} values */
export function median(values) {
  return quantile(values, 0.5);
}

/** @param {readonly number[]} values @param {number} share between 0 and 1 */
export function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const below = sorted[Math.floor(at)] ?? NaN;
  const above = sorted[Math.ceil(at)] ?? NaN;
  return below + (above - below) * (at - Math.floor(at));
}

/** @param {Candidate} candidate */
function runOnce({ name, file, args = [], env = {}, input = '', expected = 0 }) {
  const began = process.hrtime.bigint();
  const { status, signal, error, stderr } = spawnSync(file, args, { env, input, stdio: 'pipe' });
  const milliseconds = Number(process.hrtime.bigint() - began) / 1e6;
  if (error) throw error;
  if (status !== expected) throw new Error(`${name} ended with ${signal ?? status}: ${String(stderr)}`);
  return milliseconds;
}
