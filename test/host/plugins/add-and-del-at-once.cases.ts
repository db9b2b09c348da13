import { setTimeout as wait } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { removeCachedResult, writeCachedResult } from '../../../conflist/result-cache.ts';
import { CASES, previousResult } from '../../conformance/cases.ts';
import { sh } from '../../e2e/support/client-host.ts';
import { newContainer } from '../../soak/learn.ts';
import { Model } from '../../soak/model.ts';
import { CACHE, call, type Host } from '../../soak/operations.ts';
import type { Container } from '../../soak/container.ts';
import { ChainFailure } from '../../soak/runtime.ts';
import { added, hostLines, namespaceLines, type Lines } from '../../soak/state.ts';
import { makeWorld, stopWorld, type Backend } from '../../soak/world.ts';
import { PLUGIN_NAMES, type PluginName } from '../../support/executables.ts';
import { addNetns, deleteNetns } from '../../support/netns.ts';
import { startPluginProcess, variables, type ProcessOutcome } from '../../support/plugin.ts';
import { Random } from '../../support/random.ts';
import { suite } from '../../support/suite.ts';
import { rounds, THOROUGH } from '../../support/thorough.ts';

const NETNS = 'both';
const WITH_BACKENDS = ['bridge', 'firewall', 'portmap', 'consul-tproxy'] as const;
/** The time that a call takes: the two begin at most so far apart. */
const APART_MS = 120;
/** A call may take 10 s; on a busy machine its process starts late. */
const LONGEST_MS = 15_000;

/**
 * A runtime that gives up on an ADD may call DEL while the ADD still runs. Whichever ends last, each plugin's part is complete or not there at
 * all, and a DEL afterwards leaves nothing.
 */
export function addAndDelAtOnce(backend: Backend): void {
  const test = suite(`ADD and DEL at once on ${backend}`, { limit: THOROUGH ? 900 : 240 });
  const seed = Date.now() % 1_000_000_007;
  const random = new Random(seed);
  let host: Host;

  test.before(async () => {
    host = { world: await makeWorld(backend), model: new Model(), deleted: [], made: 0 };
    // Leases of the other networks would keep GC from removing rules of their addresses.
    sh('ip netns add first; rm -r /run/cni/foreign /var/lib/cni/networks');
  });
  test.after(() => stopWorld(host.world));
  test.beforeEach(() => {
    addNetns(NETNS);
  });
  test.afterEach(() => deleteNetns(NETNS));

  // Those that have no back ends, and the second name of one, once are enough.
  const plugins = backend === 'iptables-nft' || THOROUGH ? PLUGIN_NAMES : WITH_BACKENDS;
  for (const plugin of plugins) {
    test(`${plugin}: complete or nothing (seed ${seed})`, async () => {
      if (CASES[plugin].chained)
        sh(`ip -n ${NETNS} link add eth0 type veth peer name peer; ip -n ${NETNS} addr add 10.98.0.5/24 dev eth0
          ip -n ${NETNS} link set eth0 up; ip -n ${NETNS} link set peer up`);
      const path = host.world.path;
      const first = await one(plugin, 'ADD', path);
      assert.is(first.exitCode, 0, first.stdout);
      await succeed(plugin, 'DEL', path);
      const before = await everything();
      for (let round = 0; round < rounds(40, 2); round += 1) {
        const [add, del] = await Promise.all([
          wait(random.below(APART_MS)).then(() => one(plugin, 'ADD', path)),
          wait(random.below(APART_MS)).then(() => one(plugin, 'DEL', path)),
        ]);
        assert.is(del.exitCode, 0, del.stdout);
        const check = add.exitCode === 0 ? await one(plugin, 'CHECK', path, add.stdout) : undefined;
        // What a CHECK misses must not be there in part.
        if (check?.exitCode !== 0)
          assert.equal(difference(before, await everything()), [], check?.stdout ?? add.stdout);
        await succeed(plugin, 'DEL', path);
        assert.equal(difference(before, await everything()), []);
      }
    });
  }

  test(`the complete list: a DEL leaves nothing, and an ADD makes it complete (seed ${seed})`, async () => {
    const container = newContainer(host, random, 'nomad-tproxy');
    addNetns(container.id);
    await addList(host, container);
    await deleteList(host, container);
    const before = await everything(container.id);
    for (let round = 0; round < rounds(30, 3); round += 1) {
      const outcomes = await Promise.allSettled([
        wait(random.below(4 * APART_MS)).then(() => addList(host, container)),
        wait(random.below(4 * APART_MS)).then(() => deleteList(host, container)),
      ]);
      for (const outcome of outcomes)
        if (outcome.status === 'rejected') assert.ok(isPlain(outcome.reason), String(outcome.reason));
      if (round % 3 === 0) {
        await addList(host, container);
        await call(host, 'CHECK', container);
      }
      await deleteList(host, container);
      assert.equal(difference(before, await everything(container.id)), []);
    }
    deleteNetns(container.id);
  });

  test.run();
}

/** As libcni: the result of an ADD is cached until a DEL has succeeded. */
async function addList(host: Host, container: Container): Promise<void> {
  const { result } = await call(host, 'ADD', container);
  container.result = result;
  if (result !== undefined)
    writeCachedResult(CACHE, host.world.lists[container.list], container.attachment, result);
}

async function deleteList(host: Host, container: Container): Promise<void> {
  await call(host, 'DEL', container);
  container.result = undefined;
  removeCachedResult(CACHE, host.world.lists[container.list].name, container.attachment);
}

/** An error of the plugin, which tells what the DEL has removed. */
function isPlain(reason: unknown): boolean {
  return reason instanceof ChainFailure && reason.code > 0 && !/bug in the/.test(reason.message);
}

async function one(
  plugin: PluginName,
  command: string,
  path: string,
  result?: string,
): Promise<ProcessOutcome> {
  const { config, args = '', chained } = CASES[plugin];
  const given = result === undefined ? undefined : (JSON.parse(result) as object);
  const prevResult = given ?? (chained ? previousResult('1.0.0', `/run/netns/${NETNS}`) : undefined);
  const began = performance.now();
  const outcome = await startPluginProcess(plugin, {
    command,
    env: { ...variables({ id: 'c1', netns: `/run/netns/${NETNS}`, args }), PATH: path },
    stdin: { cniVersion: '1.0.0', name: 'both', type: plugin, ...config, prevResult },
  });
  assert.ok(performance.now() - began < LONGEST_MS, `${plugin} ${command} took too long`);
  return outcome;
}

async function succeed(plugin: PluginName, command: string, path: string): Promise<void> {
  const { exitCode, stdout, stderr } = await one(plugin, command, path);
  assert.equal([exitCode, stderr], [0, ''], `${plugin} ${command}: ${stdout}`);
}

async function everything(netns = NETNS): Promise<Lines> {
  const inside = await namespaceLines(netns);
  return [...(await hostLines()), ...inside.map((line) => `inside: ${line}`)];
}

function difference(before: Lines, after: Lines): string[] {
  return [
    ...added(after, before).map((line) => `missing: ${line}`),
    ...added(before, after).map((line) => `left: ${line}`),
  ];
}
