import { type Server, createServer } from 'node:net';
import { pluginFolder } from '../../conflist/runtime.ts';
import { assertExample, statisticsOf } from './assertions.ts';
import { Children } from './children.ts';
import { type Plan, exampleList, groupsOf, makePlan } from './plan.ts';
import { setUp } from './example.ts';
import { takeFootprint } from './footprint.ts';
import { checkHost, checkPort, clearLeftovers } from './preflight.ts';
import { portHolders, readHostFacts } from './host.ts';
import { runOnNomad } from './nomad/run-job.ts';
import { listening } from './programs.ts';
import { HELP, type Options, parseOptions } from './options.ts';
import { drawPicture, type SidecarStatistics } from './picture.ts';
import { Progress } from './progress.ts';
import { type State, isAlive, readState, startOf, writeState } from './state.ts';
import { PROCESS_MARK, remains, runtimeOf, tearDown } from './teardown.ts';
import { CniCode, CniError, toCniError } from '../../shared/cni/errors.ts';
import { runSubCommand } from '../../shared/config/command-line.ts';

// `weft` loads both commands from this file: it is the entry of a bundle of its own (build/bundle.mjs).
export { countdashChild } from './child.ts';

/** Executables that Nomad's list names. */
const PLUGINS = ['loopback', 'bridge', 'host-local', 'firewall', 'portmap'];

/** `weft countdash`. @returns 0 when all went well and nothing is left, 130 after Ctrl-C while starting, 1 after a failure, 2 for wrong usage */
export function countdash(argv: readonly string[]): Promise<number> {
  return runSubCommand('countdash', () => runExample(argv));
}

async function runExample(argv: readonly string[]): Promise<number> {
  const wanted = parseOptions(argv);
  const progress = new Progress();
  if (wanted === undefined) {
    progress.line(HELP.trimEnd());
    return 0;
  }
  const binDirs = wanted.binDirs ?? [pluginFolder()];
  const options = checkHost(binDirs, wanted.upstreams ? PLUGINS : [...PLUGINS, 'consul-cni'], wanted);
  const lock = await lockExample();
  try {
    return await runAlone(options, binDirs, progress);
  } finally {
    lock.close();
  }
}

async function runAlone(options: Options, binDirs: readonly string[], progress: Progress): Promise<number> {
  await clearLeftovers((line) => progress.line(line));
  checkPort(options.port);
  const plan = makePlan(options, readHostFacts(), (port) => portHolders(port).length === 0);
  const state = newState(plan, binDirs);
  writeState(state);
  return run(plan, state, progress);
}

async function run(plan: Plan, state: State, progress: Progress): Promise<number> {
  const stop = new Stop(() => progress.line('stopping'));
  const children = new Children((line) => progress.log(line));
  let status = 1;
  try {
    status = await live(plan, state, { progress, children, stop });
  } catch (thrown) {
    status = stop.interrupted ? 130 : 1;
    if (!stop.interrupted) progress.line(explain(thrown));
  }
  await children.stop();
  const clean = await takeDown(state, progress);
  stop.release();
  return clean ? status : 1;
}

async function live(
  plan: Plan,
  state: State,
  { progress, children, stop }: { progress: Progress; children: Children; stop: Stop },
): Promise<number> {
  progress.line(`countdash, ${variant(plan.options)}`);
  if (plan.options.nomad) return runOnNomad(plan, state.binDirs, { progress, stop });
  const runtime = runtimeOf(state.binDirs, (line) => progress.line(line));
  const list = exampleList(plan.subnets, plan.options);
  const parts = { list, runtime, children, progress, throwIfStopped: () => stop.check() };
  const addresses = await setUp(plan, parts);
  const draw = async (): Promise<void> => {
    const counted = plan.options.envoy === undefined ? undefined : await statistics(plan, children);
    for (const line of ['', ...drawPicture(plan, addresses, counted), '']) progress.line(line);
  };
  if (plan.options.once) {
    const failures = await assertExample({ ...parts, plan, addresses });
    if (plan.options.envoy !== undefined) await draw();
    return failures === 0 ? 0 : 1;
  }
  await draw();
  progress.line(
    `The page: http://${plan.hostAddress}:${plan.options.port}\nCtrl-C stops the example and removes everything.\n`,
  );
  await Promise.race([stop.asked, children.death]);
  if (plan.options.envoy !== undefined) await draw();
  return 0;
}

async function statistics({ api, dashboard }: Plan, children: Children): Promise<SidecarStatistics> {
  return {
    api: await statisticsOf({ children }, api),
    dashboard: await statisticsOf({ children }, dashboard),
  };
}

async function takeDown(state: State, progress: Progress): Promise<boolean> {
  await progress.step('removed', () => tearDown(state, (line) => progress.line(line)));
  const { ours, others } = await remains(state);
  if (others.length > 0) progress.line('changed on this host in the meantime, not by the example:');
  for (const line of others) progress.line(`         ${line}`);
  for (const line of ours) progress.line(`   FAIL  ${line}`);
  if (ours.length > 0) return false;
  progress.line(
    '     ok  nothing is left: interfaces, routes, namespaces, rules, files, processes and settings are as before',
  );
  return true;
}

function newState(plan: Plan, binDirs: readonly string[]): State {
  return {
    pid: process.pid,
    started: startOf(process.pid),
    before: takeFootprint(PROCESS_MARK),
    binDirs,
    list: exampleList(plan.subnets, plan.options).text,
    subnets: plan.subnets,
    groups: plan.options.nomad ? [] : groupsOf(plan),
    dns: plan.dns,
  };
}

function variant({ nomad, upstreams, deny, dualStack, backend, envoy }: Options): string {
  const parts = [
    upstreams ? 'with a manual upstream' : 'with transparent proxy',
    ...(nomad ? ['on Nomad and Consul'] : []),
    ...(envoy === undefined ? [] : ['Envoy sidecars']),
    ...(deny ? ['an intention that denies'] : []),
    ...(dualStack ? ['IPv4 and IPv6'] : []),
    ...(backend === undefined ? [] : [`rules in ${backend}`]),
  ];
  return parts.join(', ');
}

function explain(thrown: unknown): string {
  const { message, details } = toCniError(thrown);
  return `   FAIL  ${message}${details === undefined || details === '' ? '' : `; ${details}`}`;
}

/** Abstract: no file, gone with its process whatever ends it, and one for each network namespace, as the names of the example are. */
const NAME = '\0weft-countdash';

/**
 * Lets only one process of this network namespace run the example at a time: of two that start at once, the second would
 * remove the first one's namespaces as leftovers.
 * @throws CniError when there is another one
 */
export async function lockExample(): Promise<Server> {
  const server = createServer((socket) => socket.destroy());
  try {
    await listening(server, { path: NAME });
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw thrown;
    const state = readState();
    throw new CniError(
      CniCode.IoFailure,
      state !== undefined && isAlive(state)
        ? `the example runs already, as process ${state.pid}; stop it with Ctrl-C there, or: kill ${state.pid}`
        : 'another call of the example is starting or ending at this moment',
    );
  }
  return server.unref();
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * A request to stop: Ctrl-C, `kill`, a closed terminal, or an uncaught error. Handled until the host is
 * as before, so that a second Ctrl-C breaks nothing.
 */
export class Stop {
  /** Resolves at the first signal, rejects at a fault. */
  readonly asked: Promise<void>;
  readonly #onSignal: () => void;
  readonly #onFault: (fault: unknown) => void;
  #interrupted = false;
  #fault: { reason: unknown } | undefined;

  constructor(onFirst: () => void) {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    this.asked = promise;
    // Callers await the rejection later; until then it must not count as unhandled.
    promise.catch(() => undefined);
    this.#onSignal = () => {
      if (!this.#interrupted) onFirst();
      this.#interrupted = true;
      resolve(undefined);
    };
    this.#onFault = (reason) => {
      this.#fault ??= { reason };
      reject(reason);
    };
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
    process.on('uncaughtException', this.#onFault);
  }

  /** Whether the user wants to stop. */
  get interrupted(): boolean {
    return this.#interrupted;
  }

  /** Throws once there is a reason to stop: called between the steps of the set-up. */
  check(): void {
    if (this.#fault !== undefined) throw this.#fault.reason;
    if (this.#interrupted) throw new Error('interrupted');
  }

  release(): void {
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
    process.off('uncaughtException', this.#onFault);
  }
}
