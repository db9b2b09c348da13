import { CniCode, CniError, toCniError } from '../../shared/cni/errors.ts';

/**
 * Runs one step; what the kernel or the file system refuses is told with the step that wanted it.
 * @param what the step, as the end of "failed to ...": `create bridge "cni0"`
 */
export function step<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    if (thrown instanceof CniError) throw thrown;
    throw new CniError(CniCode.Internal, `failed to ${what}: ${toCniError(thrown).message}`, {
      cause: thrown,
    });
  }
}
