import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import {
  BRIDGE,
  LOOPBACK,
  LAUNCHERS,
  launchersMissing,
  NodeAgent,
  release,
  WEFT,
} from '../../support/node-agent.ts';
import { variables } from '../../support/plugin.ts';
import { Random } from '../../support/random.ts';
import { suite } from '../../support/suite.ts';
import { sh } from '../../support/variants.ts';

/** Agents that end, stop or are replaced while calls run: no call is lost, and a retry succeeds. */
const test = suite('node agent: failures', { limit: 240 });
const SEED = Number(process.env['WEFT_FUZZ_SEED'] ?? 20261127);
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

interface Outcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function call(plugin: string, command: string, stdin: string, id = 'c1'): Promise<Outcome> {
  const child = spawn(`${LAUNCHERS}/${plugin}`, {
    env: { ...variables({ id, netns: '/run/netns/pod', path: LAUNCHERS }), CNI_COMMAND: command, PATH },
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin.on('error', () => undefined).end(stdin);
  const [exitCode] = (await once(child, 'close')) as [number | null];
  return { exitCode, stdout, stderr };
}

/** Calls of loopback that must succeed in the agent and in a process alike, a few at a time; `happening` is called after a third of them. */
async function burst(count: number, happening: () => Promise<void>): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  let next = 0;
  let happened: Promise<void> | undefined;
  const worker = async (): Promise<void> => {
    while (next++ < count) {
      outcomes.push(await call('loopback', 'ADD', JSON.stringify(LOOPBACK)));
      if (outcomes.length > count / 3) happened ??= happening();
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  await happened;
  return outcomes;
}

test.before(() => {
  sh('ip netns add pod');
});

test.afterEach(() => NodeAgent.killAll());

if (launchersMissing !== undefined) test.skip('all', launchersMissing);
else addTests();

function addTests(): void {
  test(`killed at any moment of a call: the call succeeds, and so do a retry and DEL (seed ${SEED})`, async () => {
    const random = new Random(SEED);
    for (let round = 0; round < 12; round += 1) {
      const agent = await NodeAgent.start();
      const add = call('bridge', 'ADD', JSON.stringify(BRIDGE));
      await pause(random.below(60));
      await agent.stop('SIGKILL');
      const { exitCode, stdout } = await add;
      assert.is(exitCode, 0, stdout);
      const again = await call('bridge', 'ADD', JSON.stringify(BRIDGE));
      assert.is(again.exitCode, 0, again.stdout);
      const addresses = (text: string): unknown => (JSON.parse(text) as { ips: unknown }).ips;
      assert.equal(addresses(again.stdout), addresses(stdout));
      const second = await NodeAgent.start();
      const del = call('bridge', 'DEL', JSON.stringify(BRIDGE));
      await pause(random.below(40));
      await second.stop('SIGKILL');
      assert.equal(await del, { exitCode: 0, stdout: '', stderr: '' });
      const leases = readdirSync('/run/leases/net1').filter((name) => name.startsWith('10.'));
      assert.equal(leases, []);
      assert.is(execFileSync('ip', ['-o', 'link', 'show', 'type', 'veth'], { encoding: 'utf8' }), '');
    }
  });

  test('killed during a burst of 200 calls: none fails', async () => {
    const agent = await NodeAgent.start();
    const outcomes = await burst(200, async () => {
      await agent.stop('SIGKILL');
    });
    assert.is(outcomes.length, 200);
    for (const { exitCode, stdout, stderr } of outcomes) assert.equal([exitCode, stderr], [0, ''], stdout);
    assert.ok(agent.log.includes(' ok'));
  });

  test('stopped during a burst of 200 calls: each succeeds, or fails with code 11 and succeeds when repeated', async () => {
    const agent = await NodeAgent.start();
    const outcomes = await burst(200, async () => {
      agent.process.kill('SIGSTOP');
      await pause(0);
    });
    assert.is(outcomes.length, 200);
    const failed = outcomes.filter(({ exitCode }) => exitCode !== 0);
    // At most the call that the agent had accepted when it was stopped.
    assert.ok(failed.length <= 1, `${failed.length} failed`);
    for (const { stdout } of failed) assert.is((JSON.parse(stdout) as { code: number }).code, 11);
    for (const { exitCode, stderr } of outcomes) assert.ok(exitCode === 1 || stderr === '');
    assert.is((await call('loopback', 'ADD', JSON.stringify(LOOPBACK))).exitCode, 0);
    agent.process.kill('SIGCONT');
    await pause(500);
    const before = agent.log.length;
    assert.is((await call('loopback', 'ADD', JSON.stringify(LOOPBACK))).exitCode, 0);
    await agent.calls('loopback');
    assert.ok(agent.log.length > before, 'it serves again');
    await agent.stop();
  });

  test('replaced by an agent of another release, and back, during a burst of 200 calls: none fails', async () => {
    mkdirSync('/run/other');
    const other = '/run/other/weft';
    const bytes = readFileSync(WEFT);
    for (let at = bytes.indexOf(release()); at >= 0; at = bytes.indexOf(release(), at))
      bytes.fill('f', at, at + 32);
    writeFileSync(other, bytes, { mode: 0o755 });
    const first = await NodeAgent.start();
    const agents: NodeAgent[] = [first];
    const outcomes = await burst(200, async () => {
      agents.push(await NodeAgent.start([], other));
      await pause(300);
      agents.push(await NodeAgent.start());
    });
    assert.is(outcomes.length, 200);
    for (const { exitCode, stdout, stderr } of outcomes) assert.equal([exitCode, stderr], [0, ''], stdout);
    const [, newer, last] = agents;
    assert.not.match(newer?.log ?? '', ' ok', 'launchers do not talk to another release');
    assert.match(first.log, ' ok');
    assert.is((await call('loopback', 'ADD', JSON.stringify(LOOPBACK))).exitCode, 0);
    assert.ok(((await last?.calls('loopback')) ?? []).length > 0);
    for (const agent of agents) assert.is(await agent.stop(), 0);
  });

  test('1,000 launchers at once: all are answered', async () => {
    const agent = await NodeAgent.start();
    mkdirSync('/run/answers');
    const script = `for i in $(seq 1000); do ${LAUNCHERS}/loopback >/run/answers/$i & done; wait`;
    spawnSync('sh', ['-c', script], { env: { CNI_COMMAND: 'VERSION', PATH }, stdio: 'ignore' });
    const answers = readdirSync('/run/answers').map((name) => readFileSync(`/run/answers/${name}`, 'utf8'));
    assert.is(answers.length, 1000);
    for (const answer of answers) assert.match(answer, '"cniVersion":"1.1.0"');
    await agent.stop();
  });

  test('a thousand calls leave neither descriptors nor memory behind', async () => {
    const agent = await NodeAgent.start(['--log-level', 'error']);
    const pid = agent.process.pid ?? 0;
    const open = (): string[] => readdirSync(`/proc/${pid}/fd`);
    const descriptors = (): number => open().length;
    const listing = (): string =>
      open()
        .map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
        .join(' ');
    const calls = (rounds: number): void => {
      const script = `i=0; while [ $i -lt ${rounds} ]; do for c in ADD ADD DEL; do CNI_COMMAND=$c ${LAUNCHERS}/bridge </run/bridge.json >/run/result || exit 1; done; i=$((i+1)); done`;
      const { status, stderr } = spawnSync('sh', ['-c', script], {
        env: { ...variables({ id: 'c1', netns: '/run/netns/pod', path: LAUNCHERS }), PATH },
        encoding: 'utf8',
      });
      assert.is(status, 0, `${stderr}${readFileSync('/run/result', 'utf8')}`);
    };
    writeFileSync('/run/bridge.json', JSON.stringify(BRIDGE));
    calls(20);
    await pause(600);
    const before = descriptors();
    calls(300);
    // The agent closes netfilter sockets when it is idle.
    for (let tries = 0; descriptors() > before && tries < 20; tries++) await pause(500);
    assert.ok(descriptors() <= before, `${before} descriptors, then ${descriptors()}: ${listing()}`);
    const resident = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
    assert.ok(resident < 250_000, `${resident} kB`);
    assert.ok(statSync('/run/weft/locks').isDirectory());
    assert.equal(readdirSync('/run/weft/locks'), []);
    assert.is(await agent.stop(), 0);
  });
}

test.run();
