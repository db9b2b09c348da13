/** Legacy tables written in process on a host where packets flow, other programs write, and things go wrong. */
import { execFile, execFileSync, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { promisify } from 'node:util';
import * as assert from 'uvu/assert';
import { createIptablesDriver } from '../../../../../shared/packetfilter/iptables/driver.ts';
import { parseRule } from '../../../../../shared/packetfilter/iptables/parse.ts';
import type { Rule, TableChange, TableState } from '../../../../../shared/packetfilter/ruleset.ts';
import { suite } from '../../../../support/suite.ts';
import { thrown as thrownBy } from '../../../../support/thrown.ts';
import { FILTER_RULES, NAT_RULES } from '../../../../support/packetfilter/driver-cases.ts';
import { applyInProcess } from '../iptables/apply-in-process.ts';
import { clear, rules, run, saved, sh, useVariant, wordsOf, wrap } from '../../../../support/variants.ts';

const test = suite('legacy tables written in process, live', { limit: 120 });

const driver = createIptablesDriver({ where: 'host', timeoutMs: 20_000 });
const rule = (text: string): Rule => parseRule(text) as Rule;
const accept = (address: string): TableChange => ({
  family: 'ipv4',
  table: 'filter',
  ensureRules: [{ chain: 'FORWARD', rule: rule(`-s ${address}/32 -j ACCEPT`), at: 'last' }],
});

/** Programs started since the last call. */
function calls(): string {
  const text = existsSync('/run/calls') ? readFileSync('/run/calls', 'utf8') : '';
  rmSync('/run/calls', { force: true });
  return text;
}

test.before(() => {
  useVariant('legacy');
  for (const program of ['iptables-save', 'iptables-restore'])
    wrap('legacy', program, `echo ${program} >> /run/calls\nexec $REAL "$@"`);
});
test.beforeEach(() => {
  clear('filter', 'nat');
  sh('iptables -Z');
  calls();
});

for (const [table, lines] of [
  ['filter', FILTER_RULES],
  ['nat', NAT_RULES],
] as const) {
  test(`${table}: iptables lists, finds and deletes what was written, and no program was started`, () => {
    driver.apply([{ family: 'ipv4', table, setChains: [{ chain: 'CNI-X', rules: lines.map(rule) }] }]);
    assert.is(calls(), '');
    assert.equal(run('iptables', '-t', table, '-S', 'CNI-X').trim().split('\n'), [
      '-N CNI-X',
      ...lines.map((line) => `-A CNI-X ${line}`),
    ]);
    for (const line of lines) {
      const words = wordsOf(line);
      run('iptables', '-t', table, '-C', 'CNI-X', ...words);
      run('iptables', '-t', table, '-D', 'CNI-X', ...words);
    }
    assert.equal(rules(table), [':CNI-X -']);
  });
}

test('a chain that unmanaged rules lead to is deleted with them, and no program is asked for their words', () => {
  sh('iptables -N OTHER');
  sh('iptables -A INPUT -m statistic --mode random --probability 0.5 -j OTHER');
  run('iptables', '-A', 'INPUT', '-p', 'esp', '-g', 'OTHER');
  run('iptables', '-A', 'INPUT', '-p', 'esp', '-j', 'DROP');
  driver.apply([{ family: 'ipv4', table: 'filter', deleteChains: ['OTHER'] }]);
  assert.equal(rules('filter'), ['-A INPUT -p esp -j DROP']);
  assert.is(calls(), 'iptables-save\n', 'the one of this test itself');
});

test('no packet goes uncounted while the table is written again and again', async () => {
  run('iptables', '-A', 'INPUT', '-p', 'icmp', '-j', 'ACCEPT');
  run('iptables', '-P', 'OUTPUT', 'ACCEPT');
  const pinging = promisify(execFile)('ping', ['-q', '-c', '400', '-i', '0.002', '127.0.0.1']);
  let commits = 0;
  let isOver = false;
  void pinging.finally(() => (isOver = true));
  while (!isOver) {
    driver.apply([accept(`10.0.${commits >> 8}.${commits & 255}`)]);
    commits += 1;
    await new Promise((turn) => setTimeout(turn, 2));
  }
  assert.match((await pinging).stdout, '400 received');
  assert.ok(commits > 20, `${commits} commits`);
  const counted = execFileSync('/usr/sbin/iptables-legacy-save', ['-c', '-t', 'filter'], {
    encoding: 'utf8',
  });
  assert.match(counted, '[800:67200] -A INPUT -p icmp -j ACCEPT');
  assert.match(counted, ':OUTPUT ACCEPT [800:67200]');
  assert.is(counted.match(/-A FORWARD/g)?.length, commits);
});

test('eight of our processes and eight loops of iptables at once lose nothing', async () => {
  const theirs = Array.from({ length: 8 }, (_, at) =>
    promisify(execFile)('sh', [
      '-ec',
      `for n in 1 2 3 4 5 6; do iptables -w -A INPUT -s 10.7.${at}.$n -j ACCEPT; done`,
    ]),
  );
  const ours = await Promise.all(Array.from({ length: 8 }, (_, at) => applyInProcess(at)));
  await Promise.all(theirs);
  assert.equal(
    ours,
    Array.from({ length: 8 }, () => ''),
  );
  const lines = rules('filter');
  assert.is(lines.filter((line) => line.startsWith('-A INPUT -s 10.7.')).length, 48);
  assert.is(lines.filter((line) => line === '-A FORWARD -j CNI-FORWARD').length, 1);
  assert.is(lines.filter((line) => line.startsWith('-A CNI-FORWARD ')).length, 9);
  assert.is(new Set(lines).size, lines.length);
});

test('reads again when a program that takes no lock was faster', () => {
  let plans = 0;
  const plan = (state: TableState): Omit<TableChange, 'family' | 'table'> => {
    plans += 1;
    if (plans === 1) sh('env XTABLES_LOCKFILE=/run/another iptables -N MEDDLED');
    return {
      setChains: [{ chain: 'CNI-X', rules: state.chains.has('MEDDLED') ? [rule('-j MEDDLED')] : [] }],
    };
  };
  driver.apply([{ family: 'ipv4', table: 'filter', plan }]);
  assert.is(plans, 2);
  assert.equal(rules('filter'), [':CNI-X -', ':MEDDLED -', '-A CNI-X -j MEDDLED']);
});

test('what the kernel refuses leaves the table as it was, and is told with the rules', () => {
  run('iptables', '-N', 'CNI-A');
  run('iptables', '-A', 'INPUT', '-j', 'CNI-A');
  const before = saved('filter');
  calls();
  const circle: TableChange = {
    family: 'ipv4',
    table: 'filter',
    setChains: [
      { chain: 'CNI-A', rules: [rule('-j CNI-B')] },
      { chain: 'CNI-B', rules: [rule('-j CNI-A')] },
    ],
  };
  const error = thrownBy(() => driver.apply([circle]));
  assert.match(error.message, /refused to change table filter \(ipv4\), status \d; nothing was changed/);
  assert.match(error.details ?? '', /-A CNI-B -j CNI-A/);
  assert.is((error.cause as { code?: string }).code, 'ELOOP');
  assert.match(calls(), 'iptables-restore');
  assert.is(saved('filter'), before);
});

test('words of an operator go through the program', () => {
  const words: Rule = {
    matches: [{ kind: 'rawArgs', args: ['-m', 'length', '--length', '1:9'] }],
    target: { kind: 'drop' },
  };
  driver.apply([{ family: 'ipv4', table: 'filter', setChains: [{ chain: 'CNI-X', rules: [words] }] }]);
  assert.is(calls(), 'iptables-restore\n');
  assert.equal(rules('filter'), [':CNI-X -', '-A CNI-X -m length --length 1:9 -j DROP']);
});

test('the lock of iptables: the file that XTABLES_LOCKFILE names, and only where there is something to write', async () => {
  driver.apply([accept('10.0.0.1')]);
  const holder = spawn('flock', ['--no-fork', '/run/xtables.lock', 'sh', '-c', 'echo held; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((held) => holder.stdout.once('data', held));
  try {
    const impatient = createIptablesDriver({ where: 'host', timeoutMs: 300 });
    impatient.apply([accept('10.0.0.1')]);
    const error = thrownBy(() => impatient.apply([accept('10.0.0.2')]));
    assert.is(error.code, 11);
    assert.match(error.message, '/run/xtables.lock');
    process.env['XTABLES_LOCKFILE'] = '/run/another.lock';
    impatient.apply([accept('10.0.0.2')]);
    assert.ok(existsSync('/run/another.lock'));
    process.env['XTABLES_LOCKFILE'] = '/run/no/such/folder';
    const none = thrownBy(() => impatient.apply([accept('10.0.0.3')]));
    assert.is(none.code, 5);
    assert.match(none.message, '/run/no/such/folder');
  } finally {
    delete process.env['XTABLES_LOCKFILE'];
    holder.kill();
    await new Promise((ended) => holder.once('exit', ended));
  }
  assert.equal(rules('filter'), [
    '-A FORWARD -s 10.0.0.1/32 -j ACCEPT',
    '-A FORWARD -s 10.0.0.2/32 -j ACCEPT',
  ]);
});

test.run();
