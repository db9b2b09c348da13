import { hash } from 'node:crypto';
import { setFlagsFromString } from 'node:v8';
import { readRelease } from '../shared/assets.ts';
import { useBuiltInSha512 } from '../shared/cni/sha512.ts';
import { readNodeConfig } from '../shared/config/node-config.ts';
import { readOptions, requireRoot, runSubCommand, UsageError } from '../shared/config/command-line.ts';
import { writeAll } from '../shared/kernel/stdio.ts';
import { sendDatagram } from '../shared/kernel/unix-socket.ts';
import { toCniError } from '../shared/cni/errors.ts';
import { loadPlugins, type LoadedPlugins } from './call.ts';
import { LEVELS, logTo, type Level, type Log } from './log.ts';
import { FigureReader } from './metrics/figures.ts';
import type { MetricsServer } from './metrics/http-server.ts';
import { Server, SOCKET_PATH } from './server.ts';
import { startUpkeep } from './upkeep.ts';
import { warmUp } from './warm-up.ts';

const HELP = `usage: weft agent [options]

Serves plugin calls that the launchers pass to it over ${SOCKET_PATH}, until SIGTERM or until another agent takes its
place. A launcher uses an agent of its own build only; without one it executes the plugin itself. Also repairs rules, collects
garbage and serves metrics, as /etc/weft/weft.json says (weft help weft.json). Set up on a node by: weft install --agent

  --log-level LEVEL   error, warning, info (default: one line per call) or debug
  --warm-up ROUNDS    plugin calls run in a scratch network namespace before the agent reports ready (default 40; 0: none)

Exit status: 0 ended by SIGTERM or SIGINT; 1 the agent cannot serve, and stderr says why; 2 wrong usage
`;

const OPTIONS = {
  'log-level': { type: 'string', default: 'info' },
  'warm-up': { type: 'string', default: '40' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

/** `weft agent`. Resolves when the agent has stopped. @returns the exit code */
export function agent(argv: readonly string[]): Promise<number> {
  return runSubCommand('agent', () => runAgent(argv));
}

async function runAgent(argv: readonly string[]): Promise<number> {
  const { values } = readOptions(argv, OPTIONS);
  if (values.help) {
    writeAll(1, HELP);
    return 0;
  }
  const level = LEVELS.find((one) => one === values['log-level']);
  if (level === undefined) throw new UsageError(`--log-level must be one of ${LEVELS.join(', ')}`);
  const rounds = Number(values['warm-up']);
  if (!Number.isInteger(rounds) || rounds < 0 || rounds > 1000)
    throw new UsageError('--warm-up must be a number from 0 to 1000');
  requireRoot('only root can make interfaces and rules');
  return serve(level, rounds);
}

async function serve(level: Level, rounds: number): Promise<number> {
  const log = logTo(level);
  let stopping = false;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => (stopping = true));
  compileBeforeFirstRun();
  useBuiltInSha512((text) => hash('sha512', text, 'buffer'));
  const release = readRelease();
  const plugins = await loadPlugins();
  log('info', `release ${release}: ${describeWarmUp(plugins, rounds)}`);
  const server = new Server(release, plugins, log);
  const upkeep = await startUpkeep(plugins, log);
  const metrics = await startMetrics(new FigureReader(release, () => upkeep.counts()), log);
  server.onServed = (call) => metrics?.observe(call);
  notify('READY=1\nSTATUS=serving');
  while (!stopping && !server.isReplaced()) {
    const { milliseconds, fd } = upkeep.wait();
    const longest = metrics === undefined ? milliseconds : Math.min(milliseconds, REQUEST_DELAY_MS);
    server.serve({ milliseconds: longest, fd, isBusy: metrics?.isBusy() === true });
    upkeep.step();
    notify('WATCHDOG=1');
    // Signals are handled in the event loop.
    await new Promise((resolve) => setImmediate(resolve));
  }
  notify('STOPPING=1');
  log('info', stopping ? 'stopped by a signal' : `stopped: ${SOCKET_PATH} belongs to another agent now`);
  metrics?.close();
  upkeep.close();
  server.close();
  return 0;
}

/**
 * V8's baseline compiler, which a plugin process goes without (build/pack.mjs): it makes plain machine code of a function before its first run.
 * Calls are too few for V8 to find out by itself what is worth compiling. Saves a seventh of the agent's time per call. Otherwise V8 would
 * also drop the code of functions that have not run during some garbage collections, and compile it again in the next call.
 */
function compileBeforeFirstRun(): void {
  for (const flag of ['--sparkplug', '--always-sparkplug', '--no-flush-bytecode']) setFlagsFromString(flag);
}

/** If `metrics` of /etc/weft/weft.json names an address. Only then are Prometheus' client library and Node's HTTP server loaded. */
async function startMetrics(figures: FigureReader, log: Log): Promise<MetricsServer | undefined> {
  try {
    const { metrics: address } = readNodeConfig();
    if (address === undefined) return undefined;
    return (await import('./metrics/http-server.ts')).serveMetrics(address, figures, log);
  } catch (thrown) {
    log('error', `metrics: not possible: ${toCniError(thrown).message}`);
    return undefined;
  }
}

/** The host may lack what a plugin needs: then its calls fail as they would in a process of their own. */
function describeWarmUp(plugins: LoadedPlugins, rounds: number): string {
  try {
    return warmUp(plugins, rounds);
  } catch (thrown) {
    return `not warmed up: ${toCniError(thrown).message}`;
  }
}

/** sd_notify(3); nothing without systemd. */
function notify(state: string): void {
  const socket = process.env['NOTIFY_SOCKET'];
  if (socket === undefined || socket === '') return;
  const now = process.hrtime()[0];
  if (state === 'WATCHDOG=1' && now === lastNotified) return;
  lastNotified = now;
  sendDatagram(socket, state);
}

let lastNotified = 0;
/** A request for metrics may wait so long for the event loop. */
const REQUEST_DELAY_MS = 200;
