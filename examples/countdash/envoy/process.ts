import { type ChildProcess, spawn } from 'node:child_process';
import { openSync } from 'node:fs';
import { get } from 'node:http';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { isExecutable } from '../../../shared/process/run-program.ts';
import type { Log, SidecarConfig } from '../sidecar.ts';
import { ADMIN, envoyBootstrap, KEY_VARIABLE } from './bootstrap.ts';

export interface EnvoyConfig {
  /** Path of the `envoy` executable. */
  readonly program: string;
  readonly sidecar: SidecarConfig;
}

const READY_MS = 12_000;

/**
 * Opens Envoy's executable before privileges are dropped: the sidecar's user may not be able to enter its directory.
 * @returns a function that starts Envoy as the current user and resolves when its listeners are ready
 */
export function prepareEnvoy({ program, sidecar }: EnvoyConfig): (log: Log) => Promise<void> {
  const descriptor = openSync(program, 'r');
  return async (log) => {
    const envoy = launch(isExecutable(program) ? program : '/proc/self/fd/3', descriptor, sidecar);
    let live = true;
    envoy.once('exit', (code, signal) => {
      live = false;
      log(`envoy ended (${signal ?? `exit code ${code}`})`);
      process.exit(1);
    });
    createInterface({ input: envoy.stderr as NonNullable<typeof envoy.stderr> }).on('line', log);
    for (const deadline = Date.now() + READY_MS; !(await isReady());) {
      if (Date.now() > deadline)
        throw new Error(`Envoy's admin interface was not ready after ${READY_MS} ms`);
      if (live) await pause(20);
    }
  };
}

/** setpriv(1) has the kernel kill Envoy when this process ends, whatever ends it. */
function launch(file: string, descriptor: number, sidecar: SidecarConfig): ChildProcess {
  return spawn('setpriv', ['--pdeathsig', 'KILL', '--', file, ...envoyArguments(sidecar)], {
    stdio: ['ignore', 'ignore', 'pipe', descriptor],
    env: { ...process.env, [KEY_VARIABLE]: sidecar.identity.key },
  });
}

/**
 * Nomad's own defaults for the sidecar task, with a static configuration instead of Consul's.
 * @param restart Envoy's options for hot restart
 */
export function envoyArguments(
  sidecar: SidecarConfig,
  restart: readonly string[] = ['--disable-hot-restart'],
): string[] {
  return [
    ...['--config-yaml', JSON.stringify(envoyBootstrap(sidecar))],
    ...['--service-node', `countdash-child ${sidecar.identity.service}`],
    ...['--log-level', 'error', '--concurrency', '1', ...restart],
  ];
}

function isReady(): Promise<boolean> {
  return new Promise((done) => {
    const request = get({ ...ADMIN, path: '/ready', agent: false, timeout: 1000 }, (response) => {
      response.resume();
      done(response.statusCode === 200);
    });
    request.once('timeout', () => request.destroy(new Error('no answer')));
    request.once('error', () => done(false));
  });
}
