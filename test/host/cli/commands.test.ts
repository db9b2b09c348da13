/** Every sub-command of `weft` as a new user meets it: help, wrong usage, and its output on a host with one healthy attachment. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import type * as z from 'zod/mini';
import { reportSchema as doctorSchema } from '../../../cli/doctor/finding.ts';
import { reportSchema as gcSchema } from '../../../cli/gc.ts';
import { ReportSchema as installSchema } from '../../../cli/install/command.ts';
import { leasesSchema } from '../../../cli/leases.ts';
import { reportSchema as repairSchema } from '../../../cli/repair.ts';
import { pathSchema } from '../../../cli/show/path.ts';
import { statusSchema } from '../../../cli/status/report.ts';
import { executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';
import { sh } from '../../support/variants.ts';
import { weft, type WeftOutcome } from '../../support/weft.ts';

const test = suite('weft: every sub-command', { limit: 60 });
const ALLOC = '9a8e1b52-0b0a-4d5e-8c53-5d1f3c6c1b11';
const LIST = resolve(import.meta.dirname, '../../../conflist/nomad.conflist');
const NAMES = [...weft('help').stdout.matchAll(/^ {2}([a-z]\S*) {2,}\S/gm)].map(([, name = '']) => name);

const helpOf = new Map<string, string>();

/** Names, times and counters that differ from run to run. */
function golden({ stdout }: WeftOutcome): string {
  return stdout
    .replace(/^Weft .*/, 'Weft VERSION')
    .replaceAll(/veth\w+/g, 'VETH')
    .replaceAll(/\[\d+:\d+\]/g, '[N:N]')
    .replaceAll(/\b\d+s {2,}/g, 'AGE  ')
    .replaceAll(/\b\d+s\b/g, 'AGE')
    .replaceAll(/(CNI-(?:DN-)?)[0-9a-f]{10,}/g, '$1HASH')
    .replaceAll(/([0-9a-f]{2}:){5}[0-9a-f]{2}/g, 'MAC');
}

test('each tells its usage and its exit status', () => {
  assert.ok(NAMES.length > 12);
  for (const name of NAMES) {
    const { status, stdout, stderr } = weft('help', name);
    assert.equal([status, stderr], [0, ''], name);
    assert.match(stdout, new RegExp(`^usage: weft ${name}\\b`));
    helpOf.set(name, stdout);
    assert.match(stdout, /^Exit status: 0 /m, name);
  }
});

test('each refuses an unknown option, with exit status 2 and where to look', () => {
  for (const name of NAMES) {
    const { status, stdout, stderr } = weft(name, '--nonsense');
    assert.equal([status, stdout], [2, ''], name);
    assert.match(stderr, new RegExp(`--nonsense.* \\(see: weft ${name} --help\\)\\n$`, 's'));
  }
});

test('topics: each listed one has a text; a similar name is suggested', () => {
  const topics = [...weft('help').stdout.matchAll(/^ {4}(\S+) {2,}\S/gm)].map(([, name = '']) => name);
  assert.equal(topics, ['exit-status', 'plugins', 'weft.json']);
  for (const topic of topics) {
    const { status, stdout } = weft('help', topic);
    assert.equal([status, stdout.split('\n').length > 8], [0, true], topic);
  }
  const settings = weft('help', 'weft.json').stdout;
  for (const key of ['mtu', 'backend', 'repair', 'gc', 'metrics', 'tproxy', 'isolation', 'egress'])
    assert.match(settings, new RegExp(`^  ${key}  `, 'm'));
  assert.not.match(settings, /[`[]\w|\.\.$/m);
  const { status, stderr } = weft('help', 'weft.jsn');
  assert.equal(
    [status, stderr],
    [2, 'weft: unknown topic "weft.jsn"; did you mean "weft help weft.json"?\n'],
  );
});

test('run: the result of ADD, then the host with one attachment', () => {
  sh(`ip netns add ${ALLOC}`);
  const args = ['--conflist', LIST, '--netns', ALLOC, '--id', ALLOC];
  const added = weft('run', 'add', ...args, '--port', '9002:80', '--cni-args', `NOMAD_JOB_ID=web`);
  assert.equal([added.status, added.stderr], [0, '']);
  const { ips } = JSON.parse(added.stdout) as { ips: { address: string; gateway: string }[] };
  assert.equal(ips[0]?.address, '172.26.64.2/20');
  const checked = weft('run', 'check', ...args);
  assert.equal(checked, { status: 0, stdout: '', stderr: '' });
});

test('status, show, leases, repair and gc of a healthy attachment', () => {
  for (const args of [['status'], ['show', '9a8e'], ['leases']]) {
    const outcome = weft(...args);
    assert.equal([outcome.status, outcome.stderr], [0, '']);
    const file = `${import.meta.dirname}/goldens/${args[0]}.txt`;
    assert.is(golden(outcome), readFileSync(file, 'utf8'), file);
  }
  assert.is(weft('repair').stdout, '1 running attachment: 0 pieces missing\n');
  assert.is(weft('gc').stdout, 'containers that are gone and have left something: 0\n');
});

test('--json: each document is as its schema says', () => {
  const documents: readonly (readonly [schema: z.core.$ZodType, ...args: string[]])[] = [
    [statusSchema, 'status'],
    [pathSchema, 'show', ALLOC],
    [leasesSchema, 'leases'],
    [repairSchema, 'repair', '--dry-run'],
    [gcSchema, 'gc', '--dry-run'],
    [doctorSchema, 'doctor'],
    [installSchema, 'install', '--dry-run', '--bin-dir', '/opt/bin'],
    [installSchema, 'uninstall', '--bin-dir', '/opt/bin'],
  ];
  const withJson = NAMES.filter((name) => helpOf.get(name)?.includes('--json') !== false);
  assert.equal(
    withJson.filter((name) => !documents.some(([, command]) => command === name)),
    [],
    'sub-commands with --json that are not tested',
  );
  for (const [schema, ...args] of documents) {
    const { stdout, stderr } = weft(...args, '--json');
    assert.is(stderr, '', args.join(' '));
    (schema as z.ZodMiniType).parse(JSON.parse(stdout));
  }
});

test('as an unprivileged user: exit status 1, and the remedy', () => {
  // The executable's folder may be closed to others.
  sh('mkdir -p /opt/own');
  writeFileSync('/opt/own/weft', '');
  sh(`mount --bind ${executable('weft')} /opt/own/weft`);
  const commands = [['status'], ['leases'], ['show', ALLOC], ['repair'], ['gc'], ['install'], ['agent']];
  for (const args of commands) {
    const user = ['--reuid=65534', '--regid=65534', '--clear-groups', '/opt/own/weft', ...args];
    const { status, stdout, stderr } = spawnSync('setpriv', user, {
      encoding: 'utf8',
      timeout: 20_000,
      cwd: '/',
    });
    assert.equal([status, stdout], [1, ''], args.join(' '));
    assert.match(stderr, /; run it as root\n$/);
  }
});

test('what is not there: exit status 1, and what to do', () => {
  const { status, stdout, stderr } = weft('show', 'nobody');
  assert.equal([status, stdout], [1, '']);
  assert.match(stderr, /called "nobody".*; list them: weft status/);
  sh('iptables -F CNI-FORWARD');
  const drifted = weft('status');
  assert.is(drifted.status, 1);
  assert.match(drifted.stdout, /^Drift {4}3 pieces missing; restore with: weft repair$/m);
  assert.match(drifted.stdout, /^missing {2}.*CNI-FORWARD.*172\.26\.64\.2/m);
  const repaired = weft('repair');
  assert.equal(repaired, {
    status: 0,
    stdout: '1 running attachment: 3 pieces missing, 3 restored\n',
    stderr: '',
  });
  assert.match(weft('status').stdout, /^Drift {4}none$/m);
});

test.run();
