import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import {
  addAllocation,
  bridgeList,
  makeHost,
  runDoctor,
  sh,
  script,
  PLUGINS,
} from '../../../support/doctor.ts';
import { binDir, executable } from '../../../support/executables.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('weft doctor: output', { limit: 60 });
const NOMAD = new URL('../../../../conflist/nomad.conflist', import.meta.url).pathname;
const ID = '6d0f2b3a-41f3-0c52-9f0e-1d8c7b3c2a11';

test.before(() => {
  makeHost();
  sh('iptables -N NOMAD-ADMIN; iptables -A NOMAD-ADMIN -o nomad -d 172.26.64.0/20 -j ACCEPT');
  addAllocation(ID, NOMAD, '--port', '8080:80');
});

test('a healthy node with the real executables: nothing found, exit status 0', async () => {
  const { status, text, stderr } = await runDoctor('--cni-path', binDir);
  assert.is(
    text,
    `kernel         ok
packet filter  ok
plugins        ok
network        ok
mesh           ok (3 checks not possible)
capacity       ok

not checked
  Consul DNS address; Consul DNS, asked by this host; Consul DNS, asked from the bridge: no Consul agent answers at
  http://127.0.0.1:8500 (ECONNREFUSED)

no problem found by the checks that could run
`,
  );
  assert.equal([status, stderr], [0, '']);
});

test('the check of a node takes less than 2 s of processor time, plugins included', () => {
  const times =
    sh(`${executable('weft')} doctor --cni-path ${binDir} >/dev/null; times`).split('\n')[1] ?? '';
  const spent = [...times.matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, minutes, seconds]) => Number(minutes) * 60 + Number(seconds),
  );
  assert.is(spent.length, 2, times);
  const seconds = (spent[0] ?? 0) + (spent[1] ?? 0);
  assert.ok(seconds > 0.05 && seconds < 2, times);
});

test('a warning: exit status 1', async () => {
  sh('ip link set nomad type bridge stp_state 1');
  const { status, text } = await runDoctor();
  sh('ip link set nomad type bridge stp_state 0');
  assert.is(
    paragraphs(text)[1],
    `warning: the spanning tree protocol is on for nomad [bridge-stp]
  where   interface nomad
  why     a new allocation has no network for 30 s
  remedy  ip link set nomad type bridge stp_state 0`,
  );
  assert.is(paragraphs(text).at(-1), '0 errors, 1 warning\n');
  assert.is(status, 1);
});

test('errors come first: exit status 2; without --fix, nothing is changed', async () => {
  sh('sysctl -qw net.ipv4.ip_forward=0; iptables -F NOMAD-ADMIN');
  const before = state();
  const { status, text } = await runDoctor();
  assert.is(state(), before);
  assert.is(status, 2);
  const [summary, ...rest] = paragraphs(text);
  assert.is(
    summary,
    `kernel         1 error
packet filter  1 warning
plugins        ok
network        ok
mesh           ok (3 checks not possible)
capacity       ok`,
  );
  assert.is(
    rest[0],
    `error: net.ipv4.ip_forward is 0 [ip-forward-off]
  where   net.ipv4.ip_forward
  why     the kernel drops every packet between an allocation and another host, and every published port is dead
  remedy  sysctl -w net.ipv4.ip_forward=1
          or: weft doctor --fix`,
  );
  assert.match(rest[1] ?? '', /^warning: chain NOMAD-ADMIN /);
  assert.is(rest.at(-1), '1 error, 1 warning\n');
});

test('on a terminal, --fix asks for each fix', () => {
  const answered = onTerminal('y\nn\n');
  assert.match(answered, /net\.ipv4\.ip_forward is 0\s+sysctl -w net\.ipv4\.ip_forward=1\s+Apply\? \[y\/N\]/);
  assert.match(
    answered,
    /fixed\s+sysctl -w net\.ipv4\.ip_forward=1\s+undo with: sysctl -w net\.ipv4\.ip_forward=0/,
  );
  assert.is(sh('sysctl -n net.ipv4.ip_forward').trim(), '1');
  assert.not.match(sh('iptables -S NOMAD-ADMIN'), 'ACCEPT');
});

test('without a terminal, --fix applies every fix and reports how to undo it', async () => {
  sh(`chmod 644 ${PLUGINS}/portmap; ip link set nomad down; ip address del 172.26.64.1/20 dev nomad`);
  const { status, report } = await runDoctor('--fix', '--json');
  assert.equal([status, report.findings], [0, []]);
  assert.equal(
    report.fixed.map(({ id, undo }) => [id, undo]),
    [
      ['nomad-admin', 'iptables -D NOMAD-ADMIN -d 172.26.64.0/20 -o nomad -j ACCEPT'],
      ['bridge-down', 'ip link set nomad down'],
      ['bridge-address-missing', 'ip address del 172.26.64.1/20 dev nomad'],
      ['plugin-not-executable', `chmod 0644 ${PLUGINS}/portmap`],
    ],
  );
});

test("an allocation: its network, and the sidecar's files with their last lines, without secrets", async () => {
  const folder = `/opt/nomad/data/alloc/${ID}`;
  mkdirSync(`${folder}/alloc/logs`, { recursive: true });
  mkdirSync(`${folder}/connect-proxy-count-api/secrets`, { recursive: true });
  const write = (path: string, text: string): void => writeFileSync(`${folder}/${path}`, text);
  write('alloc/logs/connect-proxy-count-api.stderr.0', 'old\n');
  write('alloc/logs/connect-proxy-count-api.stderr.1', `${'line\n'.repeat(20)}the last line\n`);
  write('alloc/logs/envoy_bootstrap.stderr.0', 'Unexpected response code: 403 (Permission denied)\n');
  write('connect-proxy-count-api/secrets/.envoy_bootstrap.cmd', 'connect envoy -token secret-1 -bootstrap\n');
  write('connect-proxy-count-api/secrets/.envoy_bootstrap.env', '[\n    "CONSUL_HTTP_TOKEN=secret-2"\n]\n');
  const { text, status } = await runDoctor('6d0f2b');
  assert.is(status, 0);
  assert.not.match(text, 'secret-');
  assert.is(
    paragraphs(text).at(-2),
    `allocation ${ID}
  network nomad, eth0: 172.26.64.2/20; running (network namespace /var/run/netns/${ID} exists)
  standard error of connect-proxy-count-api
    ${folder}/alloc/logs/connect-proxy-count-api.stderr.1
${'    | line\n'.repeat(7)}    | the last line
  standard output of connect-proxy-count-api
    ${folder}/alloc/logs/connect-proxy-count-api.stdout.0 (does not exist)
  errors of Envoy's bootstrap
    ${folder}/alloc/logs/envoy_bootstrap.stderr.0
    | Unexpected response code: 403 (Permission denied)
  command of Envoy's bootstrap
    ${folder}/connect-proxy-count-api/secrets/.envoy_bootstrap.cmd
    | connect envoy -token <hidden> -bootstrap
  environment of Envoy's bootstrap
    ${folder}/connect-proxy-count-api/secrets/.envoy_bootstrap.env
    | [
    |     "CONSUL_HTTP_TOKEN=<hidden>"
    | ]`,
  );
});

test('an unprivileged user gets what can be found, and the reason for the rest', () => {
  // The executable's folder may be closed to others.
  sh(`mkdir -p /opt/own; touch /opt/own/weft; mount --bind ${executable('weft')} /opt/own/weft`);
  const { status, stdout, stderr } = spawnSync(
    'setpriv',
    [
      '--reuid',
      '65534',
      '--regid',
      '65534',
      '--clear-groups',
      '/opt/own/weft',
      'doctor',
      '--cni-path',
      PLUGINS,
    ],
    { encoding: 'utf8', timeout: 20_000, cwd: '/', env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } },
  );
  sh('umount /opt/own/weft');
  assert.is(stderr, '');
  assert.match(stdout, /kernel features: .*CAP_SYS_ADMIN/);
  assert.match(stdout, /only root can read the cached results of the runtime/);
  assert.match(stdout, /^plugins +ok/m);
  assert.is(status, 0);
});

test('a plugin with an open pipe and a list that is a FIFO hold nothing up', async () => {
  script(`${PLUGINS}/hanging`, 'sleep 60 & sleep 60');
  sh('mkfifo /opt/lists/x.conflist');
  bridgeList('fine', 'fine0', ['10.9.0.0/24']);
  const began = Date.now();
  const { report } = await runDoctor('--json');
  assert.ok(Date.now() - began < 10_000);
  assert.equal(
    report.findings.map(({ id }) => id),
    ['conflist-invalid', 'plugin-slow'],
  );
  sh(`rm /opt/lists/x.conflist ${PLUGINS}/hanging`);
});

const MISTAKES: readonly (readonly [args: string[], message: RegExp])[] = [
  [['--nonsense'], /--nonsense/],
  [['one', 'two'], /unexpected argument "two"/],
  [['--consul', '::bad'], /--consul takes HOST:PORT or a URL, got "::bad"/],
  [['--dns', '192.0.2.2'], /--dns takes IP:PORT, got "192\.0\.2\.2"/],
  [['ffff'], /no allocation with id ffff/],
];
test('wrong usage: exit status 2 and the reason', async () => {
  for (const [args, message] of MISTAKES) {
    const { status, text, stderr } = await runDoctor(...args);
    assert.equal([status, text], [2, '']);
    assert.match(stderr, message);
  }
  const help = await runDoctor('--help');
  assert.is(help.status, 0);
  assert.match(help.text, /Exit status: 0 no problem; 1 warnings; 2 errors/);
});

test.run();

function paragraphs(text: string): string[] {
  return text.split('\n\n');
}

function state(): string {
  return sh(
    'ip -o address; ip route; sysctl -a 2>/dev/null | grep -E "^net.(ipv4|ipv6|bridge)" | grep -v mem; iptables-save | grep -v "^#"; find /run /var/lib/cni /etc/weft -type f 2>/dev/null | sort',
  );
}

/** By script(1), which gives the program a terminal. */
function onTerminal(input: string): string {
  const command = `${executable('weft')} doctor --fix --cni-path ${PLUGINS} --cni-config-dir /opt/lists`;
  return execFileSync('script', ['-qc', command, '/dev/null'], { encoding: 'utf8', input, timeout: 20_000 });
}
