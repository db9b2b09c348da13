import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';

/** Arguments of unshare(1), to be followed by a program and its own: that runs on a host of its own, see own-host.sh. */
export const ON_OWN_HOST: readonly string[] = [
  '--net',
  '--mount',
  '--pid',
  '--fork',
  '--kill-child',
  '--mount-proc',
  '--propagation',
  'private',
  '--',
  'sh',
  resolve(import.meta.dirname, 'own-host.sh'),
];

/** Environment of a host for executables in `binDir`: if they are launchers, a node agent of their build runs on the host (own-host.sh). */
export function agentFor(binDir: string): Readonly<Record<string, string>> {
  return existsSync(`${binDir}/.weft`) ? { WEFT_TEST_AGENT: resolve(binDir, '../bin/weft') } : {};
}

/** Runs a script of the tests on a host of its own, with this process's stdio. @returns its exit code */
export function runOnOwnHost(
  script: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): number {
  const { status } = spawnSync(
    'unshare',
    [...ON_OWN_HOST, process.execPath, '--no-warnings', script, ...args],
    { stdio: 'inherit', env: { ...process.env, ...env } },
  );
  return status ?? 1;
}
