import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { ReportSchema } from '../../../../cli/install/command.ts';
import { executable, PLUGIN_NAMES } from '../../../support/executables.ts';
import { launchersMissing } from '../../../support/node-agent.ts';
import { suite } from '../../../support/suite.ts';

/** `weft install` and `weft uninstall` with the real executable, on a host of their own. */
const test = suite('weft install', { limit: 120 });

const BIN = '/opt/cni/bin';
const REFERENCE = ['loopback', 'bridge', 'host-local', 'firewall', 'portmap'];

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function sh(script: string): void {
  const { status, stderr } = spawnSync('sh', ['-c', script], { encoding: 'utf8' });
  assert.is(status, 0, `${script}: ${stderr}`);
}

function weft(...args: readonly string[]): Outcome {
  return spawnSync(executable('weft'), args, { encoding: 'utf8' });
}

function succeed(...args: readonly string[]): string {
  const { status, stdout, stderr } = weft(...args);
  assert.equal([status, stderr], [0, ''], stdout);
  return stdout.replaceAll(/\d{8}T\d{6}Z/g, 'TIME');
}

/** Path -> mode, inode's time of change where wanted, and contents of everything that an installation may touch. */
function state(withTimes = false): Record<string, string> {
  const roots = ['/opt/cni', '/usr/local/bin', '/etc/systemd/system/weft-agent.service'];
  return Object.fromEntries(roots.flatMap((root) => under(root, withTimes)));
}

function under(path: string, withTimes: boolean): [string, string][] {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return [];
  const own = [stats.mode.toString(8), withTimes ? stats.ctimeMs : ''].join(' ');
  if (stats.isDirectory())
    return [[path, own], ...readdirSync(path).flatMap((name) => under(join(path, name), withTimes))];
  const content = stats.isSymbolicLink() ? readlinkSync(path) : hash(readFileSync(path));
  return [[path, `${own} ${content}`]];
}

function hash(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex').slice(0, 16);
}

/** Debian's plugins, a consul-cni, and files of others. */
function referenceNode(): void {
  rmSync('/opt/cni', { recursive: true, force: true });
  rmSync('/usr/local/bin/weft', { force: true });
  mkdirSync(BIN, { recursive: true });
  for (const name of [...REFERENCE, 'macvlan']) copyFileSync(`/usr/lib/cni/${name}`, `${BIN}/${name}`);
  rmSync(`${BIN}/portmap`);
  symlinkSync('/usr/lib/cni/portmap', `${BIN}/portmap`);
  script('consul-cni', 'CNI consul-cni plugin v1.4.3');
  script('calico', 'CNI calico plugin v3.29.1');
}

function script(name: string, line: string): void {
  writeFileSync(`${BIN}/${name}`, `#!/bin/sh\necho '${line}'\n`);
  chmodSync(`${BIN}/${name}`, 0o755);
}

function requireWeft(): void {
  for (const name of PLUGIN_NAMES) {
    const { stderr } = spawnSync(`${BIN}/${name}`, { env: {}, encoding: 'utf8' });
    assert.match(stderr, `CNI ${name} plugin v2.`);
  }
}

test.before(() => {
  // test/support/own-host.sh leaves /usr as the machine's.
  sh('mount -t tmpfs tmpfs /usr/local/bin');
});
test.beforeEach(referenceNode);

const REPLACED = `loopback             replaced CNI reference plugin of unknown version
  bridge               replaced CNI reference plugin of unknown version
  host-local           replaced CNI reference plugin of unknown version
  firewall             replaced CNI reference plugin of unknown version
  portmap              replaced CNI reference plugin of unknown version
  consul-tproxy        added
  consul-cni           replaced CNI consul-cni plugin v1.4.3
  /usr/local/bin/weft  added
replaced files: /opt/cni/bin-before-weft-TIME`;

test('over the reference plugins, again, and back: output, and not a byte of difference', () => {
  const before = state();
  const planned = REPLACED.replaceAll('replaced C', 'replace C')
    .replaceAll('added', 'add')
    .replace('replaced files', 'keep replaced files in');
  assert.is(succeed('install', '--dry-run'), `would install in ${BIN}; nothing was changed:\n  ${planned}\n`);
  assert.equal(state(), before);

  assert.is(
    succeed('install'),
    `installed Weft 2.0.0 in ${BIN}:\n  ${REPLACED}\n` +
      'next: systemctl reload nomad   (Nomad before 1.11.2: restart)\nundo: weft install --rollback\n',
  );
  requireWeft();
  assert.is(statSync(`${BIN}/bridge`).ino, statSync(`${BIN}/consul-cni`).ino);
  for (const name of ['macvlan', 'calico'])
    assert.is(state()[`${BIN}/${name}`], before[`${BIN}/${name}`], name);

  const installed = state(true);
  assert.is(succeed('install'), `Weft 2.0.0 is installed in ${BIN}; nothing was changed\n`);
  assert.equal(state(true), installed);

  assert.match(
    succeed('install', '--rollback'),
    `uninstalled from ${BIN}:\n  loopback             restored\n`,
  );
  assert.equal(state(), before);
  assert.is(succeed('uninstall'), `weft install has installed nothing in ${BIN}\n`);
});

test('--json, checked by its schema', () => {
  const report = (...args: string[]) => ReportSchema.parse(JSON.parse(succeed(...args, '--json')));
  const { result, files, savedIn, version } = report('install');
  assert.equal([result, version, savedIn], ['installed', '2.0.0', '/opt/cni/bin-before-weft-TIME']);
  assert.equal(files[1], {
    path: `${BIN}/bridge`,
    action: 'replace',
    was: 'CNI reference plugin of unknown version',
  });
  assert.is(report('install').result, 'unchanged');
  assert.is(report('uninstall').result, 'restored');
  assert.is(report('uninstall').result, 'nothing installed');
});

test('a file that was replaced afterwards stays at uninstall, with a warning', () => {
  succeed('install');
  rmSync(`${BIN}/firewall`);
  script('firewall', 'CNI firewall plugin v1.9.0');
  const mine = readFileSync(`${BIN}/firewall`);
  assert.match(
    succeed('uninstall'),
    `warning: ${BIN}/firewall was changed after the installation and stays as it is`,
  );
  assert.equal(readFileSync(`${BIN}/firewall`), mine);
  assert.not(existsSync(`${BIN}/consul-tproxy`));
});

test('runtimes call plugins during the installation: every call is answered', async () => {
  const calls = `while [ ! -e /run/enough ]; do out=$(CNI_COMMAND=VERSION ${BIN}/bridge </dev/null) || exit 1; n=$((n+1)); done; echo "$n"`;
  rmSync('/run/enough', { force: true });
  const runtime = spawn('sh', ['-c', calls], { stdio: ['ignore', 'pipe', 'inherit'] });
  for (const args of [['install'], ['install', '--rollback'], ['install'], ['uninstall']]) succeed(...args);
  writeFileSync('/run/enough', '');
  const [count] = (await once(runtime.stdout, 'data')) as [Buffer];
  assert.ok(Number(String(count)) > 10, String(count));
});

if (launchersMissing !== undefined) test.skip('--agent', launchersMissing);
else
  test('--agent: launchers, unit and service; from processes and back, uninstall of both', () => {
    const before = state();
    mkdirSync('/run/systemd/system', { recursive: true });
    const log = '/run/systemctl.log';
    writeFileSync('/usr/local/bin/systemctl', `#!/bin/sh\necho "$*" >>${log}\n`, { mode: 0o755 });
    const run = (...args: string[]): [string, string[]] => {
      rmSync(log, { force: true });
      const { status, stdout, stderr } = spawnSync(executable('weft'), args, {
        env: { PATH: '/usr/local/bin:/usr/sbin:/usr/bin' },
        encoding: 'utf8',
      });
      assert.equal([status, stderr], [0, ''], stdout);
      return [stdout, existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []];
    };
    run('install');
    const plain = state();
    const [text, calls] = run('install', '--agent');
    assert.match(text, 'installed Weft 2.0.0 with the node agent');
    assert.match(text, '  bridge                                  replaced Weft v2.0.0\n');
    assert.equal(calls, ['daemon-reload', 'enable weft-agent.service', 'restart weft-agent.service']);
    requireWeft();
    assert.ok(statSync(`${BIN}/bridge`).size < 2 ** 20);
    assert.match(readFileSync('/etc/systemd/system/weft-agent.service', 'utf8'), '/usr/local/bin/weft agent');
    const [again, asked] = run('install', '--agent');
    assert.match(again, 'nothing was changed');
    assert.equal(asked, ['is-enabled weft-agent.service', 'is-active weft-agent.service']);

    const [, stopped] = run('install', '--rollback');
    assert.equal(stopped, ['disable --now weft-agent.service', 'daemon-reload']);
    const { '/usr/local/bin/systemctl': fake, ...others } = state();
    assert.ok(fake);
    assert.equal(
      without(others, '.weft/install.json'),
      without(plain, '.weft/install.json', '/usr/local/bin/systemctl'),
    );
    run('install', '--agent');
    run('uninstall');
    rmSync('/usr/local/bin/systemctl');
    rmSync('/run/systemd', { recursive: true });
    assert.equal(state(), before);
  });

function without(files: Record<string, string>, ...names: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    Object.entries(files).filter(([path]) => !names.some((name) => path.endsWith(name))),
  );
}

/** What makes an installation impossible -> the reason that is printed. */
const REFUSALS: Readonly<Record<string, { make: () => void; reason: RegExp; undo: () => void }>> = {
  'read-only file system': {
    make: () => sh(`mount --bind ${BIN} ${BIN} && mount -o remount,ro,bind ${BIN}`),
    reason:
      /^weft install: cannot install: \/opt\/cni\/bin is on a read-only file system; nothing was changed\n$/,
    undo: () => sh(`umount ${BIN}`),
  },
  'no space': {
    make: () => sh(`mount -t tmpfs -o size=64m tmpfs /opt/cni && mkdir ${BIN}`),
    reason: /no space on the file system of \/opt\/cni\/bin: \d+ MB needed, \d+ MB free; nothing was changed/,
    undo: () => sh('umount /opt/cni'),
  },
  'no inodes': {
    make: () => sh(`mount -t tmpfs -o nr_inodes=20 tmpfs /opt/cni && mkdir ${BIN}`),
    reason: /no free inodes on the file system of \/opt\/cni\/bin/,
    undo: () => sh('umount /opt/cni'),
  },
  'noexec file system': {
    make: () => sh(`mount -t tmpfs -o noexec tmpfs /opt/cni && mkdir ${BIN}`),
    reason: /bridge does not run on this host: .*not executable; .*mounted without noexec/,
    undo: () => sh('umount /opt/cni'),
  },
  'another vendor’s bridge': {
    make: () => script('bridge', 'Acme bridge 7'),
    reason:
      /not a plugin of the CNI reference, of Consul or of Weft: \/opt\/cni\/bin\/bridge \(prints "Acme bridge 7"\)/,
    undo: () => undefined,
  },
  'a directory': {
    make: () => {
      rmSync(`${BIN}/portmap`);
      mkdirSync(`${BIN}/portmap`);
    },
    reason: /\/opt\/cni\/bin\/portmap is neither a regular file nor a symbolic link/,
    undo: () => undefined,
  },
  'SELinux without restorecon': {
    make: () =>
      sh('mount -t tmpfs tmpfs /sys/fs && mkdir /sys/fs/selinux && echo 1 >/sys/fs/selinux/enforce'),
    reason:
      /SELinux is enforcing, and restorecon, which labels the files, is missing; install policycoreutils/,
    undo: () => sh('umount /sys/fs'),
  },
};

for (const [title, { make, reason, undo }] of Object.entries(REFUSALS)) {
  test(`refuses: ${title}; nothing is changed`, () => {
    make();
    const before = state();
    const { status, stdout, stderr } = weft('install');
    const after = state();
    undo();
    assert.equal([status, stdout], [1, '']);
    assert.match(stderr, reason);
    assert.equal(after, before);
  });
}

test('--root: the plugins must run with the C library of that file system', () => {
  sh('mkdir -p /run/image/opt/cni/bin');
  const { status, stderr } = weft('install', '--root', '/run/image');
  assert.is(status, 1);
  assert.match(stderr, '/run/image/opt/cni/bin/.weft/new/try/bridge does not run on this host');
  assert.equal(readdirSync('/run/image/opt/cni/bin'), []);
  sh('for dir in bin lib lib64 usr; do mkdir /run/image/$dir && mount --rbind /$dir /run/image/$dir; done');
  sh('mount -t tmpfs tmpfs /run/image/usr/local/bin');
  assert.match(succeed('install', '--root', '/run/image'), 'installed Weft 2.0.0 in /run/image/opt/cni/bin');
  assert.ok(existsSync('/run/image/usr/local/bin/weft'));
  assert.not(existsSync('/usr/local/bin/weft'));
});

test('wrong usage has exit status 2', () => {
  for (const args of [['--rollback', '--agent'], ['--bin-dir', 'opt'], ['--root', '/nonexistent'], ['--x']])
    assert.is(weft('install', ...args).status, 2, args.join(' '));
});

test('SIGKILL at real steps: the next run completes or undoes it (every step: test/unit/cli/install)', () => {
  const original = state();
  succeed('install');
  const installed = Object.keys(state()).map((path) => path.replace(/\d{8}T\d{6}Z/, 'TIME'));
  succeed('uninstall');
  // While it saves; before and after it replaces plugins.
  const steps = [
    ['link', 4],
    ['rename', 9],
    ['rename', 12],
  ] as const;
  let killed = 0;
  for (const [at, [call, when]] of steps.entries()) {
    const step = `${call} ${when}`;
    const inject = `inject=${call}:signal=SIGKILL:when=${when}`;
    const { signal } = spawnSync('strace', [
      ...['-o', '/run/trace', '-e', `trace=${call}`, '-e', inject],
      ...[executable('weft'), 'install'],
    ]);
    if (signal === 'SIGKILL') killed++;
    const next = [['install'], ['install', '--rollback'], ['uninstall']][at % 3] ?? [];
    assert.is(weft(...next).status, 0, step);
    if (at % 3 === 0) {
      requireWeft();
      assert.equal(
        Object.keys(state()).map((path) => path.replace(/\d{8}T\d{6}Z/, 'TIME')),
        installed,
        step,
      );
    }
    if (existsSync(`${BIN}/.weft`)) succeed('uninstall');
    assert.equal(state(), original, step);
  }
  assert.is(killed, steps.length);
});

test.run();
