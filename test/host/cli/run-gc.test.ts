import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { binDir, executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';

/**
 * `weft run del` and `weft run gc` as an operator uses them on a Nomad client: Nomad's own list (cniVersion 0.4.0, leases in
 * /var/run/cni), without the results that Nomad's libcni cached.
 */
const test = suite('weft run: clean-up with the list of Nomad', { limit: 60 });

const LIST = resolve(import.meta.dirname, '../../../conflist/nomad.conflist');
const NETWORK = 'nomad';

test.before(() => {
  execFileSync('sh', ['-c', 'iptables -N NOMAD-ADMIN; ip6tables -N NOMAD-ADMIN; mkdir -p /var/lib/cni']);
});
test.beforeEach(() => {
  for (const id of ['a', 'b']) {
    execFileSync('sh', ['-c', `ip netns del ${id} 2>/dev/null; ip netns add ${id}`]);
    weft('add', '--id', id, '--netns', id, '--port', id === 'a' ? '9001' : '9002');
  }
  execFileSync('rm', ['-rf', '/var/lib/cni/results']);
});
test.afterEach(() => weft('gc', '--valid', 'none'));

function weft(verb: string, ...options: string[]): void {
  const args = ['run', verb, '--conflist', LIST, '--bin-dir', binDir, ...options];
  const { status, stdout, stderr } = spawnSync(executable('weft'), args, { encoding: 'utf8' });
  assert.equal([status, stderr], [0, ''], `${verb}: ${stdout}`);
}

const leases = (): string[] =>
  readdirSync(`/var/run/cni/${NETWORK}`).filter((name) => /^[0-9a-f.:]+$/.test(name) && name !== 'lock');
const rulesOf = (address: string): string[] =>
  execFileSync('iptables-save', { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(`${address}/`) || line.includes(`${address}:`));
const addressOf = (id: string): string =>
  /inet ([0-9.]+)\//.exec(
    execFileSync('ip', ['-n', id, '-o', '-4', 'addr', 'show', 'eth0'], { encoding: 'utf8' }),
  )?.[1] ?? '';

test('del --id removes the rules, the ports and the lease of an allocation whose namespace is gone', () => {
  const [gone, kept] = [addressOf('a'), addressOf('b')];
  assert.ok(rulesOf(gone).length > 0);
  execFileSync('ip', ['netns', 'del', 'a']);
  weft('del', '--id', 'a');
  assert.equal(rulesOf(gone), []);
  assert.ok(rulesOf(kept).length > 0);
  assert.equal(leases(), [kept]);
});

test('gc --valid-present removes what is left of dead allocations and keeps the running ones', () => {
  const [gone, kept] = [addressOf('a'), addressOf('b')];
  const before = rulesOf(kept);
  execFileSync('ip', ['netns', 'del', 'a']);
  weft('gc', '--valid-present');
  assert.equal(rulesOf(gone), []);
  assert.equal(rulesOf(kept), before);
  assert.equal(leases(), [kept]);
});

test('gc --valid removes every other allocation', () => {
  const [gone, kept] = [addressOf('a'), addressOf('b')];
  weft('gc', '--valid', 'b');
  assert.equal(rulesOf(gone), []);
  assert.equal(leases(), [kept]);
  assert.not.match(execFileSync('ip', ['-n', 'a', 'link'], { encoding: 'utf8' }), 'eth0');
});

test.run();
