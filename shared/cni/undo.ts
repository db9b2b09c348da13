import { withRollbackTime } from '../kernel/deadline.ts';
import { CniCode, CniError, toCniError } from './errors.ts';

/**
 * The undo steps of an ADD. Each step pushes its undo right after it succeeded; when a later one throws, the undos run in
 * reverse and the first error is the one reported. An undo that fails is a warning, and the others still run.
 */
export class UndoStack {
  readonly #undos: { what: string; undo: () => void }[] = [];

  push(what: string, undo: () => void): void {
    this.#undos.push({ what, undo });
  }

  unwind(warn: (line: string) => void): void {
    for (const { what, undo } of this.#undos.reverse()) {
      try {
        undo();
      } catch (thrown) {
        warn(`while undoing ${what}: ${toCniError(thrown).message}`);
      }
    }
    this.#undos.length = 0;
  }
}

/** Runs `steps`; if it throws, everything pushed is undone before the error goes on. */
export function withRollback<T>(warn: (line: string) => void, steps: (undo: UndoStack) => T): T {
  const stack = new UndoStack();
  try {
    return steps(stack);
  } catch (thrown) {
    withRollbackTime(() => stack.unwind(warn));
    throw thrown;
  }
}

/** Runs every step even when some throw, then throws the first error: a DEL does all it can before it reports. */
export function runAll(steps: readonly (() => void)[], warn: (line: string) => void): void {
  const errors: unknown[] = [];
  for (const step of steps) {
    try {
      step();
    } catch (thrown) {
      errors.push(thrown);
    }
  }
  for (const later of errors.slice(1)) warn(toCniError(later).message);
  if (errors.length > 0) throw errors[0];
}

/**
 * Runs one step. An error of the kernel or the file system becomes a CniError that names the step.
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
