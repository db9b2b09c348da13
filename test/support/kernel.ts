import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { KernelError } from '../../shared/kernel/errno.ts';

/** Standard output of a program; throws with its standard error when it fails. */
export function run(file: string, ...args: string[]): string {
  return execFileSync(file, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** What `ip -json -details` says, as an array of objects. */
export function ip(...args: string[]): Record<string, unknown>[] {
  const text = run('ip', '-json', '-details', ...args);
  return text.trim() === '' ? [] : (JSON.parse(text) as Record<string, unknown>[]);
}

/** A new named network namespace; it ends with the test file's own host. */
export function makeNamespace(name: string): string {
  run('ip', 'netns', 'add', name);
  return `/run/netns/${name}`;
}

/** Asserts that `work` throws a KernelError with this code, and returns it. */
export function kernelError(code: string, work: () => unknown): KernelError {
  try {
    work();
  } catch (thrown) {
    assert.instance(thrown, KernelError);
    assert.is((thrown as KernelError).code, code);
    return thrown as KernelError;
  }
  throw new Error(`expected ${code}, but nothing was thrown`);
}

/** Asserts that `work` throws an error with this CNI code, and returns it. */
export function cniError(code: number, work: () => unknown): Error {
  try {
    work();
  } catch (thrown) {
    assert.instance(thrown, Error);
    assert.is((thrown as { code?: unknown }).code, code);
    return thrown as Error;
  }
  throw new Error(`expected an error of code ${code}, but nothing was thrown`);
}
