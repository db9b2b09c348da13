import { execFile, execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import type { FindingId } from '../../cli/doctor/catalog.ts';
import { reportSchema, type Report } from '../../cli/doctor/finding.ts';
import { binDir, executable } from './executables.ts';
import { suite, type Suite } from './suite.ts';

/** `weft doctor` on prepared hosts: faults are made together, and each must be found, alone in its place, until its remedy has run. */

export interface Fault {
  /** What is wrong; the test's title. */
  readonly fault: string;
  /** Commands, or a function. */
  readonly make: string | (() => void);
  readonly id: FindingId;
  readonly where: string | RegExp;
  /** In the finding's text. */
  readonly what?: RegExp;
  /** What an operator does; default: the printed remedy, as it is. */
  readonly remedy?: string | (() => void);
  /** The printed remedy, where `remedy` stands for what this host lacks (systemctl, Nomad). */
  readonly printed?: RegExp;
}

export interface Outcome {
  readonly status: number;
  readonly report: Report;
  readonly text: string;
  readonly stderr: string;
}

/** Stands for Nomad's cni_path: scripts that print a version, because starting the real ones takes most of a run. */
export const PLUGINS = '/opt/plugins';
export const LISTS = '/opt/lists';

export function sh(command: string): string {
  const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:${OWN_PATH}` };
  return execFileSync('sh', ['-ec', command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], env });
}

/** Has `weft`, for remedies. */
const OWN_PATH = '/opt/own-path';

/** An uplink with a default route, plugins, and no allocation. */
export function makeHost(): void {
  sh(`ip link add up0 type veth peer name up0peer; ip link set up0 up; ip link set up0peer up
    ip address add 192.0.2.2/24 dev up0; ip route add default via 192.0.2.1
    mkdir -p ${LISTS} ${PLUGINS} ${OWN_PATH}; ln -s ${executable('weft')} ${OWN_PATH}/weft`);
  for (const name of ['loopback', 'bridge', 'host-local', 'firewall', 'portmap'])
    script(`${PLUGINS}/${name}`, `echo "CNI ${name} plugin v1.9.1"`);
  script(`${PLUGINS}/consul-cni`, 'echo "CNI consul-cni plugin v2.1.0"');
}

export function script(path: string, body: string): void {
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
}

/** One allocation, as Nomad adds it; `ip netns` names its namespace after it. */
export function addAllocation(id: string, list: string, ...options: string[]): void {
  sh(`ip netns add ${id}`);
  execFileSync(executable('weft'), [
    ...['run', 'add', '--conflist', list, '--id', id, '--netns', id, '--bin-dir', binDir],
    ...options,
  ]);
}

export function deleteAllocation(id: string, list: string): void {
  execFileSync(executable('weft'), ['run', 'del', '--conflist', list, '--id', id, '--bin-dir', binDir]);
  sh(`ip netns del ${id}`);
}

export function writeList(name: string, list: object): string {
  mkdirSync(LISTS, { recursive: true });
  const path = `${LISTS}/${name}.conflist`;
  writeFileSync(path, JSON.stringify({ cniVersion: '1.0.0', name, ...list }));
  return path;
}

/** A network with a bridge of its own. */
export function bridgeList(
  name: string,
  bridge: string,
  subnets: readonly string[],
  more: object = {},
): string {
  const ipam = {
    type: 'host-local',
    ranges: subnets.map((subnet) => [{ subnet }]),
    dataDir: '/var/run/cni',
    ...more,
  };
  return writeList(name, { plugins: [{ type: 'bridge', bridge, isGateway: true, ipMasq: true, ipam }] });
}

/** Without stopping this process, which may be the server that is asked. */
export function runDoctor(...options: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const places = ['--cni-path', PLUGINS, '--cni-config-dir', LISTS, '--nomad-data-dir', '/opt/nomad/data'];
    execFile(
      executable('weft'),
      ['doctor', ...places, ...options],
      { encoding: 'utf8', timeout: 20_000, env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } },
      (error, stdout, stderr) => {
        const status = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
        const report = options.includes('--json') ? reportSchema.parse(JSON.parse(stdout)) : EMPTY;
        resolve({ status, report, text: stdout, stderr });
      },
    );
  });
}

const EMPTY: Report = {
  version: '',
  status: 'ok',
  findings: [],
  notChecked: [],
  fixed: [],
  allocation: null,
};

/**
 * The tests of one host.
 * @param options.rounds faults that are made together; no fault hides another one of its round
 * @param options.doctor options of each run
 */
export function suiteOfFaults(
  name: string,
  options: {
    readonly before: () => void | Promise<void>;
    readonly rounds: readonly (readonly Fault[])[];
    readonly doctor?: readonly string[];
    readonly after?: () => void;
  },
): Suite {
  const test = suite(name, { limit: 60 });
  const diagnose = (): Promise<Outcome> => runDoctor('--json', ...(options.doctor ?? []));
  test.before(options.before);
  if (options.after !== undefined) test.after(options.after);
  test('a healthy host: nothing to report', async () => assertHealthy(await diagnose()));
  for (const [at, faults] of options.rounds.entries()) {
    let found: Report['findings'] = [];
    test(`round ${at + 1}: ${faults.length} faults`, async () => {
      for (const { make } of faults) act(make);
      const { report, status, stderr } = await diagnose();
      found = report.findings;
      assert.is(stderr, '');
      const hasErrors = found.some(({ level }) => level === 'error');
      assert.equal([status, report.status], hasErrors ? [2, 'errors'] : [1, 'warnings']);
      const surplus = found.filter((finding) => !faults.some((fault) => isOf(fault, finding)));
      assert.equal(surplus, [], 'findings of no fault');
    });
    for (const fault of faults) {
      test(`${fault.fault}: ${fault.id}`, () => {
        const own = found.filter((finding) => isOf(fault, finding));
        assert.is(own.length, 1, JSON.stringify(found, null, 1));
        if (fault.printed !== undefined) assert.match(own[0]?.remedy ?? '', fault.printed);
      });
    }
    test(`round ${at + 1}: after the remedies, nothing to report`, async () => {
      for (const fault of faults) {
        const [finding] = found.filter((one) => isOf(fault, one));
        act(fault.remedy ?? finding?.remedy ?? 'false');
      }
      assertHealthy(await diagnose());
    });
  }
  return test;
}

function assertHealthy({ status, report, stderr }: Outcome): void {
  assert.equal(report.findings, []);
  assert.equal([status, report.status, stderr], [0, 'ok', '']);
}

function isOf({ id, where, what }: Fault, finding: Report['findings'][number]): boolean {
  const isThere = typeof where === 'string' ? finding.where === where : where.test(finding.where);
  return finding.id === id && isThere && (what === undefined || what.test(finding.what));
}

function act(action: string | (() => void)): void {
  if (typeof action === 'string') sh(action);
  else action();
}
