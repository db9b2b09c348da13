import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { binDir } from '../support/executables.ts';
import { errorOf, runPluginProcess, variables, type ProcessOutcome } from '../support/plugin.ts';
import { suite } from '../support/suite.ts';

/** Checklist A19 and A23 on bridge, the one plugin that runs others: IPAM plugins of other vendors, played by shell scripts. */
const test = suite('conformance: delegation');

const NS = '/run/netns/pod';
const FOREIGN = '/run/foreign';

test.before(() => mkdirSync(FOREIGN));
test.beforeEach(() => {
  execFileSync('sh', ['-c', 'ip netns del pod 2>/dev/null; ip netns add pod']);
});

function ipam(body: string): void {
  writeFileSync(`${FOREIGN}/dispenser`, `#!/bin/sh\n${body}\n`);
  chmodSync(`${FOREIGN}/dispenser`, 0o755);
}

const CONFIG =
  '{"cniVersion":"1.0.0",  "name":"n","type":"bridge","bridge":"foreign0","ipam":{"type":"dispenser","own": [1.50, "ü"]}}';

function bridge(
  command: string,
  stdin: string = CONFIG,
  path = `/nowhere:${FOREIGN}:${binDir}`,
): ProcessOutcome {
  return runPluginProcess('bridge', {
    command,
    env: { ...variables({ id: 'c1', netns: NS, path }), CNI_ARGS: 'IgnoreUnknown=1;X=y=z', EXTRA: '1' },
    stdin,
  });
}

const containerLinks = (): string => execFileSync('ip', ['-n', 'pod', '-o', 'link'], { encoding: 'utf8' });
const ports = (): string => execFileSync('ip', ['-o', 'link', 'show', 'type', 'veth'], { encoding: 'utf8' });

test('an IPAM plugin of another vendor gets the same stdin and environment, and its result is used', () => {
  ipam(
    `cat > ${FOREIGN}/stdin.$CNI_COMMAND; env > ${FOREIGN}/env.$CNI_COMMAND\n` +
      `echo '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.97.0.5/24","gateway":"10.97.0.1"}],"dns":{"domain":"d"}}'`,
  );
  const outcome = bridge('ADD');
  assert.equal([outcome.exitCode, outcome.stderr], [0, ''], outcome.stdout);
  const result = JSON.parse(outcome.stdout) as Record<string, unknown>;
  assert.equal(result['ips'], [{ address: '10.97.0.5/24', gateway: '10.97.0.1', interface: 2 }]);
  assert.equal(result['dns'], { domain: 'd' });
  assert.match(
    execFileSync('ip', ['-n', 'pod', '-o', 'addr', 'show', 'eth0'], { encoding: 'utf8' }),
    '10.97.0.5/24',
  );
  assert.is(bridge('DEL').exitCode, 0);
  for (const command of ['ADD', 'DEL']) {
    assert.is(readFileSync(`${FOREIGN}/stdin.${command}`, 'utf8'), CONFIG);
    const environment = readFileSync(`${FOREIGN}/env.${command}`, 'utf8').split('\n');
    for (const line of [
      `CNI_COMMAND=${command}`,
      'CNI_CONTAINERID=c1',
      `CNI_NETNS=${NS}`,
      'CNI_IFNAME=eth0',
      'EXTRA=1',
      'CNI_ARGS=IgnoreUnknown=1;X=y=z',
    ]) {
      assert.ok(environment.includes(line), line);
    }
  }
});

test('its error comes through with code, message and details, and nothing is left', () => {
  ipam(`echo '{"code":104,"msg":"the pool is dry","details":"d"}'; exit 1`);
  const { code, msg, details, cniVersion } = errorOf(bridge('ADD'));
  assert.equal([code, msg, details, cniVersion], [104, 'the pool is dry', 'd', '1.0.0']);
  assert.not.match(containerLinks(), 'eth0');
  assert.is(ports(), '');
});

test('one that is not there is named with the folders searched', () => {
  const path = '/nowhere:/run';
  const error = errorOf(bridge('ADD', CONFIG, path));
  assert.match(error.msg, 'failed to find plugin "dispenser" in path [/nowhere /run]');
  assert.not.match(containerLinks(), 'eth0');
});

test('a layer-2 result cannot be written in 0.1.0 and 0.2.0: refused, and nothing is left in the container', () => {
  for (const cniVersion of ['0.1.0', '0.2.0']) {
    const stdin = JSON.stringify({ cniVersion, name: 'n', type: 'bridge', bridge: 'foreign0' });
    const { msg } = errorOf(bridge('ADD', stdin));
    assert.match(msg, 'cannot convert: no valid IP addresses');
    assert.not.match(containerLinks(), 'eth0');
    assert.is(ports(), '');
  }
});

test.run();
