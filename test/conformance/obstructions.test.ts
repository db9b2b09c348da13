import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, mkdirSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { executable, type PluginName } from '../support/executables.ts';
import { runPluginProcess, variables, type ProcessOutcome } from '../support/plugin.ts';
import { suite, TIME_FACTOR } from '../support/suite.ts';
import { sample, THOROUGH } from '../support/thorough.ts';
import { backendNamed, makeLegacyFolder } from '../support/tproxy.ts';
import { changes, prepareHost, sh, state } from './calls.ts';
import { CASES, previousResult } from './cases.ts';

/** Something on the host stands in a call's way: ADD, CHECK and DEL of each plugin that meets it end, and a DEL afterwards leaves nothing. */
const test = suite('conformance: obstructions', { limit: 120 });

/** The plugins' own deadline is 10 s. */
const LONGEST_MS = 15_000 * TIME_FACTOR;

const ALL: readonly PluginName[] = [
  'loopback',
  'bridge',
  'host-local',
  'firewall',
  'portmap',
  'consul-tproxy',
];
const WITH_LEASES: readonly PluginName[] = ['bridge', 'host-local'];
/** A sample of those with rules on the host: each of their calls takes ten seconds. */
const ON_HOST: readonly PluginName[] = sample(['bridge', 'firewall', 'portmap']);
const VERBS = ['ADD', 'CHECK', 'DEL'] as const;

interface Obstruction {
  /** Those that meet it. */
  readonly plugins: readonly PluginName[];
  /** Puts it up. @returns what takes it away */
  readonly put: (containers: readonly Container[]) => Promise<() => void> | (() => void);
  /** How sh(1) starts the plugin, whose configuration is in the file $1. */
  readonly start?: string;
  readonly isLegacy?: boolean;
  /** They take turns, as Nomad's calls do: a call that queues behind another has more time (shared/kernel/deadline.ts). */
  readonly inTurn?: readonly PluginName[];
}

/** One for each plugin and verb: that of ADD is new each time, those of CHECK and DEL were added before. */
interface Container {
  readonly plugin: PluginName;
  readonly verb: (typeof VERBS)[number];
  readonly path: string;
  readonly id: string;
  readonly netns: string;
  result?: object;
}

/** What a file may be instead, as mknod(1) takes it; one of them in a short run. */
const KINDS: readonly (readonly [string, string])[] = (
  [
    ['a FIFO', 'p'],
    ['/dev/zero', 'c 1 5'],
  ] as const
).filter((_, at) => THOROUGH || at === Date.now() % 2);

const STORE = '/var/run/cni/conformance';
const RESOLV_CONF = '/run/odd/resolv.conf';

const OBSTRUCTIONS: Readonly<Record<string, Obstruction>> = {
  'an unprivileged process locks the file of the network namespace': {
    plugins: ALL,
    put: (containers) =>
      hold(
        containers.map(({ netns }) => netns),
        'setpriv --reuid=65534 --clear-groups',
      ),
  },
  'another process holds the lock of the lease store': {
    plugins: WITH_LEASES,
    put: () => hold([`${STORE}/lock`]),
  },
  'another process holds the xtables lock': {
    plugins: [...ON_HOST, 'consul-tproxy'],
    put: () => hold(['/run/xtables.lock']),
    isLegacy: true,
    inTurn: ON_HOST,
  },
  'a FIFO in place of the lock of the lease store': {
    plugins: WITH_LEASES,
    put: () => replace('p', [`${STORE}/lock`]),
  },
  ...Object.fromEntries(
    KINDS.flatMap(([what, kind]): [string, Obstruction][] => [
      [`${what} in place of weft.json`, { plugins: ALL, put: () => replace(kind, ['/etc/weft/weft.json']) }],
      [
        `${what} in place of the cached result`,
        {
          plugins: ['bridge', 'host-local', 'firewall', 'portmap'],
          put: (containers) => replace(kind, cached(containers)),
        },
      ],
      [`${what} in place of resolvConf`, { plugins: WITH_LEASES, put: () => replace(kind, [RESOLV_CONF]) }],
    ]),
  ),
  'nothing reads stdout, a full pipe': {
    plugins: ALL,
    put: fullPipe,
    start: 'exec "$0" <$1 3<>/run/odd/full >&3',
  },
  'nothing reads stderr, a full pipe, and there is something to warn of': {
    plugins: ALL,
    put: () => {
      writeFileSync('/etc/weft/weft.json', '{');
      const remove = fullPipe();
      return () => {
        remove();
        rmSync('/etc/weft/weft.json');
      };
    },
    start: 'exec "$0" <$1 3<>/run/odd/full 2>&3',
  },
  'stdin trickles in and never ends': {
    plugins: ALL,
    put: () => () => undefined,
    start: 'for i in $(seq 60); do printf " " || exit; sleep 1; done 2>/dev/null | "$0"',
  },
};

let before: readonly string[] = [];
const containers = new Map<string, Container>();

test.before(() => {
  prepareHost();
  makeLegacyFolder();
  sh(
    `mkdir -p /run/odd /etc/weft; printf 'nameserver 192.0.2.53\\n' > ${RESOLV_CONF}; touch /run/xtables.lock`,
  );
  // The first calls make what stays: the bridge, chains that all share.
  for (const isLegacy of [false, true]) {
    for (const one of ALL.map((plugin) => containerOf(plugin, 'ADD', isLegacy)))
      for (const command of ['ADD', 'DEL']) call(one, command);
  }
  before = state();
});

for (const [title, { plugins, put, start, isLegacy = false, inTurn = [] }] of Object.entries(OBSTRUCTIONS)) {
  test(`${title}: ADD, CHECK and DEL of ${plugins.join(', ')} end within 15 s`, async () => {
    const all = plugins.flatMap((plugin) => VERBS.map((verb) => containerOf(plugin, verb, isLegacy)));
    for (const one of all.filter(({ verb, result }) => verb !== 'ADD' && result === undefined)) addTo(one);
    const remove = await put(all);
    let turn = Promise.resolve('');
    const problems = await Promise.all(
      all.map((one, at) => {
        // Not all at once: the start of one is not to slow down another.
        if (!inTurn.includes(one.plugin)) return wait(100 * at).then(() => obstructed(one, start));
        turn = turn.then(() => obstructed(one, start));
        return turn;
      }),
    );
    remove();
    assert.is(problems.join(''), '');
    for (const one of all) {
      if (one.verb === 'ADD') call(one, 'DEL');
      if (one.verb === 'DEL') addTo(one);
    }
  });
}

test('without the obstructions, DEL leaves nothing', () => {
  for (const one of containers.values()) call(one, 'DEL');
  assert.equal(
    changes(before, state()).filter((line) => !/ namespaces: | files: \/run\/(netns|odd)\//.test(line)),
    [],
  );
});

test.run();

function containerOf(plugin: PluginName, verb: Container['verb'], isLegacy: boolean): Container {
  const id = `${plugin}-${verb}${isLegacy ? '-legacy' : ''}`;
  const known = containers.get(id);
  if (known !== undefined) return known;
  sh(`ip netns add ${id}`);
  const { path } = backendNamed(isLegacy ? 'iptables-legacy' : 'iptables-nft');
  const made = { plugin, verb, path, id, netns: `/run/netns/${id}` };
  containers.set(id, made);
  return made;
}

function addTo(one: Container): void {
  one.result = JSON.parse(call(one, 'ADD').stdout) as object;
}

function call(one: Container, command: string): ProcessOutcome {
  const outcome = runPluginProcess(one.plugin, {
    command,
    env: environmentOf(one, command),
    stdin: configOf(one),
  });
  assert.is(outcome.exitCode, 0, `${command} of ${one.id}: ${outcome.stdout}${outcome.stderr}`);
  return outcome;
}

/** @returns what is wrong with the end of the call; empty if nothing is */
async function obstructed(one: Container, start = 'exec "$0" <$1'): Promise<string> {
  const input = `/run/odd/${one.id}.json`;
  writeFileSync(input, JSON.stringify(configOf(one)));
  const began = Date.now();
  const child = spawn('sh', ['-c', start, executable(one.plugin), input], {
    env: { ...environmentOf(one, one.verb), CNI_COMMAND: one.verb },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: LONGEST_MS,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  const [exitCode] = (await once(child, 'close')) as [number | null];
  const seconds = ((Date.now() - began) / 1000).toFixed(1);
  const isAnswer =
    exitCode === 0 ||
    (exitCode === 1 && (stdout === '' || (JSON.parse(stdout) as { code: number }).code !== 999));
  return isAnswer ? '' : `${one.id}: exit code ${exitCode} after ${seconds} s: ${stdout}\n`;
}

function environmentOf({ plugin, id, netns, path }: Container, command: string): Record<string, string> {
  const args = command === 'DEL' ? '' : (CASES[plugin].args ?? '');
  return { ...variables({ id, netns, args }), PATH: path };
}

/** Each container publishes another port. */
/** Each container has another address and publishes another port. */
function configOf({ plugin, id, netns, result }: Container): object {
  const { config, chained } = CASES[plugin];
  const number = [...containers.keys()].indexOf(id);
  const prevResult = chained ? previousResult('1.1.0', netns) : result;
  return JSON.parse(
    JSON.stringify({ cniVersion: '1.1.0', name: 'conformance', type: plugin, ...config, prevResult })
      .replaceAll('"HostPort":9002', `"HostPort":${9100 + number}`)
      .replaceAll('10.98.0.5/', `10.98.0.${10 + number}/`)
      .replaceAll('"type":"host-local"', `"type":"host-local","resolvConf":"${RESOLV_CONF}"`),
  ) as object;
}

/** Locks files in another process. */
async function hold(files: readonly string[], prefix = ''): Promise<() => void> {
  const locks = files.map((file, at) => `exec ${at + 3}<${file}; flock -n ${at + 3} || exit 1`);
  const holder = spawn(
    'sh',
    ['-c', `exec ${prefix} bash -c '${locks.join('; ')}; echo held; exec sleep 60'`],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const [text] = (await once(holder.stdout, 'data')) as [Buffer];
  assert.is(text.toString(), 'held\n');
  return () => holder.kill('SIGKILL');
}

/** @param kind as mknod(1) takes it */
function replace(kind: string, files: readonly string[]): () => void {
  for (const file of files) {
    mkdirSync(file.replace(/\/[^/]*$/, ''), { recursive: true });
    sh(`[ ! -e ${file} ] || mv ${file} ${file}.kept; mknod ${file} ${kind}`);
  }
  return () => {
    for (const file of files) sh(`rm -f ${file}; [ ! -e ${file}.kept ] || mv ${file}.kept ${file}`);
  };
}

function cached(containers: readonly Container[]): string[] {
  return containers.map(({ id }) => `/var/lib/cni/results/conformance-${id}-eth0`);
}

function fullPipe(): () => void {
  sh('rm -f /run/odd/full; mkfifo /run/odd/full');
  const pipe = openSync('/run/odd/full', constants.O_RDWR | constants.O_NONBLOCK);
  writeSync(pipe, Buffer.alloc(65_536));
  return () => closeSync(pipe);
}
