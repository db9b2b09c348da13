import { CniError } from '../../shared/cni/errors.ts';

/** The CniError that `run` throws; anything else, or nothing, fails the test. */
export function thrown(run: () => unknown): CniError {
  try {
    run();
  } catch (error) {
    if (error instanceof CniError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}
