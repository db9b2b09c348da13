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

/** musl first: a process starts in half of the time, with 7 page faults instead of 27, and the file is a tenth as large. */
const COMPILERS = [
  { command: 'musl-gcc', library: 'musl', copyright: '/usr/share/doc/musl-dev/copyright' },
  {
    command: 'cc',
    library: 'the C library of the launcher',
    copyright: '/usr/share/doc/libc6-dev/copyright',
  },
];

/** @typedef {{ file: string, library: string, copyright: string }} Launcher  the C library in it, and Debian's file with its license */

/**
 * @param {string} root @param {string} work @param {string} release of the executable that it belongs to
 * @returns {Launcher | undefined} undefined without a C compiler
 */
export function compileLauncher(root, work, release) {
  const file = join(work, 'launcher');
  const source = join(root, 'launcher/launcher.c');
  for (const { command, ...library } of COMPILERS) {
    const { error, status, stderr } = spawnSync(
      command,
      [...FLAGS, `-DRELEASE="${release}"`, `-ffile-prefix-map=${root}=.`, '-o', file, source],
      { encoding: 'utf8' },
    );
    if (error !== undefined && /** @type {NodeJS.ErrnoException} */ (error).code === 'ENOENT') continue;
    if (error) throw error;
    if (status !== 0)
      throw new Error(
        `${command} cannot compile launcher/launcher.c (gcc, and libc6-dev or musl-dev installed?): ${stderr}`,
      );
    return { file, ...library };
  }
  return undefined;
}
