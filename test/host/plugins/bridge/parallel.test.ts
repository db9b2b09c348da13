import { spawn } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { executable } from '../../../support/executables.ts';
import { succeed, variables, type ProcessOutcome } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import {
  addressesOf,
  cleanHost,
  ip,
  ipam,
  leases,
  makeNamespace,
  natRules,
  network,
  sh,
  startHelper,
} from './host.ts';

const test = suite('bridge: many at once', { limit: 400 });
test.beforeEach(cleanHost);
test.after(cleanHost);

/** As a runtime starts it, but with more patience than one call alone needs: a hundred share the processors. */
function start(command: string, number: number, config: object): Promise<ProcessOutcome> {
  // A file, because starting the others keeps this process from feeding pipes.
  const file = `/run/config.${number}.json`;
  writeFileSync(file, JSON.stringify(config));
  const stdin = openSync(file, 'r');
  const attachment = variables({ id: `cont${number}`, netns: `/run/netns/c${number}` });
  const child = spawn(executable('bridge'), {
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...attachment, CNI_COMMAND: command },
    stdio: [stdin, 'pipe', 'pipe'],
    timeout: 180_000,
    killSignal: 'SIGKILL',
  });
  closeSync(stdin);
  const outcome = { stdout: '', stderr: '' };
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (outcome.stdout += text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (outcome.stderr += text));
  return new Promise((resolve, reject) => {
    child.on('error', reject).on('close', (exitCode) => resolve({ ...outcome, exitCode }));
  });
}

const numbers = (count: number): number[] => Array.from({ length: count }, (_, at) => at + 1);

// On two busy cores 100 calls at once take longer than the 10 s that one call may take.
test('24 first ADDs at once all succeed: distinct addresses, one gateway address, no rule twice; 24 DELs leave nothing', async () => {
  const config = network({ ipMasq: true, ipam: ipam(['10.88.0.0/16']) });
  for (const number of numbers(24)) makeNamespace(`c${number}`);
  const outcomes = await Promise.all(numbers(24).map((number) => start('ADD', number, config)));
  const failed = outcomes.filter(({ exitCode }) => exitCode !== 0);
  assert.equal(
    failed.map(({ stdout, stderr }) => stdout + stderr),
    [],
  );
  const results = outcomes.map(({ stdout }) => JSON.parse(stdout) as CniResult);

  const addresses = results.map(({ ips }) => ips[0]?.address ?? '');
  assert.is(new Set(addresses).size, 24);
  assert.is(new Set(results.map(({ interfaces }) => interfaces[0]?.mac)).size, 1, 'one bridge, one MAC');
  assert.equal(addressesOf('br0'), ['10.88.0.1/16']);
  assert.is(ip('link show type bridge').length, 1);
  assert.is(ip('link show type veth').filter(({ master }) => master === 'br0').length, 24);
  assert.is(Object.keys(leases()).length, 24);
  const rules = natRules();
  assert.is(new Set(rules).size, rules.length, 'a rule exists twice');
  assert.is(rules.length, 96, 'chain, jump and two rules each');

  // First, last and one in the middle answer.
  const probe = await startHelper('probe.ts', undefined);
  for (const number of [1, 12, 24]) {
    await startHelper('echo.ts', `c${number}`);
    const [address = ''] = (addresses[number - 1] ?? '').split('/');
    assert.match(await probe.ask(`${address} 2000`), / 10\.88\.0\.1$/);
  }

  const removed = await Promise.all(numbers(24).map((number) => start('DEL', number, config)));
  assert.equal(
    removed.filter(({ exitCode }) => exitCode !== 0).map(({ stdout }) => stdout),
    [],
  );
  assert.equal([ip('link show type veth'), leases(), natRules()], [[], {}, []]);
});

test('an ADD that fails does not remove the bridge or its address that others use', async () => {
  // Room for 13 of 30: the first to come, and maybe the one that makes the bridge, may be one that fails.
  const config = network({ ipam: ipam([], { ranges: [[{ subnet: '10.88.0.0/28' }]] }) });
  // These fail after they made everything: their route leads nowhere.
  const broken = network({
    ipam: ipam([], {
      ranges: [[{ subnet: '10.88.0.0/28' }]],
      routes: [{ dst: '192.0.2.0/24', gw: '172.16.0.1' }],
    }),
  });
  for (let round = 0; round < 3; round++) {
    cleanHost();
    for (const number of numbers(30)) makeNamespace(`c${number}`);
    const outcomes = await Promise.all(
      numbers(30).map((number) => start('ADD', number, number % 2 === 0 ? broken : config)),
    );
    const well = numbers(30).filter((number) => outcomes[number - 1]?.exitCode === 0);
    assert.ok(well.length > 0);
    assert.equal(
      well.filter((number) => number % 2 === 0),
      [],
      'a broken one succeeded',
    );
    for (const [at, { exitCode, stdout }] of outcomes.entries()) {
      if (exitCode !== 0)
        assert.match(stdout, at % 2 === 1 ? /configure eth0|no IP addresses/ : /no IP addresses/);
    }
    assert.equal(addressesOf('br0'), ['10.88.0.1/28'], 'the gateway address');
    assert.is(ip('link show type veth').filter(({ master }) => master === 'br0').length, well.length);
    assert.is(Object.keys(leases()).length, well.length);
    for (const number of well) {
      const prevResult = JSON.parse(outcomes[number - 1]?.stdout ?? '') as CniResult;
      succeed(
        'bridge',
        'CHECK',
        { id: `cont${number}`, netns: `/run/netns/c${number}` },
        { ...config, prevResult },
      );
    }
  }
});

test('the same container twice at once ends with one of everything, whichever wins', async () => {
  const config = network({ ipMasq: true });
  for (let round = 0; round < 5; round++) {
    cleanHost();
    makeNamespace('c1');
    const outcomes = await Promise.all([start('ADD', 1, config), start('ADD', 1, config)]);
    assert.ok(
      outcomes.some(({ exitCode }) => exitCode === 0),
      outcomes.map(({ stdout }) => stdout).join(),
    );
    const prevResult = succeed('bridge', 'ADD', { id: 'cont1', netns: '/run/netns/c1' }, config);
    succeed('bridge', 'CHECK', { id: 'cont1', netns: '/run/netns/c1' }, { ...config, prevResult });
    assert.is(ip('link show type veth').length, 1);
    assert.is(Object.keys(leases()).length, 1);
    assert.is(natRules().length, 4);
    assert.is(sh('ip netns list').trim().split('\n').length, 1);
  }
});

test.run();
