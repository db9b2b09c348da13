import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

/**
 * launcher/launcher.c -> a static executable.
 *
 * -static           nothing is loaded at start; hosts of any libc can run it
 * _FORTIFY_SOURCE and the flags beside it: what distributions compile with
 */
const FLAGS = [
  ...['-std=c11', '-O2', '-static', '-s'],
  ...['-Wall', '-Wextra', '-Wpedantic', '-Wconversion', '-Wshadow', '-Werror'],
  ...['-D_FORTIFY_SOURCE=2', '-fstack-protector-strong', '-Wl,-z,relro,-z,now,-z,noexecstack'],
];

/**
 * @param {string} root @param {string} work @param {string} release of the executable that it belongs to
 * @param {readonly string[]} [more] flags
 * @returns {string | undefined} the file; undefined without a C compiler
 */
export function compileLauncher(root, work, release, more = []) {
  const file = join(work, 'launcher');
  const source = join(root, 'launcher/launcher.c');
  const { error, status, stderr } = spawnSync(
    'cc',
    [...FLAGS, ...more, `-DRELEASE="${release}"`, `-ffile-prefix-map=${root}=.`, '-o', file, source],
    { encoding: 'utf8' },
  );
  if (error !== undefined && /** @type {NodeJS.ErrnoException} */ (error).code === 'ENOENT') return undefined;
  if (error) throw error;
  if (status !== 0) throw new Error(`cannot compile launcher/launcher.c (libc6-dev installed?): ${stderr}`);
  return file;
}
