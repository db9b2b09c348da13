import { spawnSync } from 'node:child_process';
import { executable } from './executables.ts';

export interface WeftOutcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `weft` to its end, with the PATH of an administrator and nothing else in its environment. */
export function weft(...args: string[]): WeftOutcome {
  const { status, stdout, stderr } = spawnSync(executable('weft'), args, {
    encoding: 'utf8',
    timeout: 50_000,
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
  });
  return { status, stdout, stderr };
}
