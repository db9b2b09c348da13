/** `weft status` and `weft show` on a host with Nomad's list, as a new user runs them. */
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { execa } from 'execa';
import * as assert from 'uvu/assert';
import { pathSchema } from '../../../cli/show/path.ts';
import { statusSchema, type Status } from '../../../cli/status/report.ts';
import { executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';
import { nft } from '../../support/port-host.ts';
import { sh } from '../../support/variants.ts';
import { weft } from '../../support/weft.ts';

const test = suite('weft status, weft show', { limit: 60 });
const ALLOC = '9a8e1b52-0b0a-4d5e-8c53-5d1f3c6c1b11';
const LIST = resolve(import.meta.dirname, '../../../conflist/nomad.conflist');
const CNI_ARGS = `IgnoreUnknown=true;NOMAD_JOB_ID=countdash;NOMAD_GROUP_NAME=dashboard;NOMAD_ALLOC_ID=${ALLOC}`;

function statusOf(...args: string[]): Status & { exitCode: number | null } {
  const { status, stdout } = weft('status', '--json', ...args);
  return { ...statusSchema.parse(JSON.parse(stdout)), exitCode: status };
}

/** Of a packet that the host's neighbour sends to a published port. */
const HEADER = '^iif "up0" ip saddr 192\\.0\\.2\\.9 ip daddr 192\\.0\\.2\\.1 .* tcp dport 900\\d .*\\n';
const DNAT_BY_IPTABLES =
  '( {2}ip weft_hostports prerouting policy accept\\n)( {2}ip nat PREROUTING .*\\n)( {2}ip nat CNI-HOSTPORT-DNAT .*\\n) {2}ip nat CNI-DN-\\w+ .* dnat to 172\\.26\\.64\\.2:80 ';

/** What `weft show --trace` prints, started at the same time for each target; meanwhile another host opens connections to their ports. */
async function traces(...targets: (readonly [target: string, port: number])[]): Promise<string[]> {
  const connect = targets
    .map(([, port]) => `timeout 1 bash -c 'exec 3<>/dev/tcp/192.0.2.1/${port}';`)
    .join(' ');
  const loop = `for i in $(seq 60); do ${connect} sleep 0.2; done`;
  const connecting = spawn('ip', ['netns', 'exec', 'neighbour', 'sh', '-c', loop], { stdio: 'ignore' });
  const outcomes = await Promise.all(
    targets.map(([target]) => execa(executable('weft'), ['show', target, '--trace'], { reject: false })),
  );
  connecting.kill();
  return outcomes.map(({ exitCode, stdout, stderr }) => {
    assert.is(exitCode, 0, stderr);
    return stdout;
  });
}

test.before(() => {
  sh('ip netns add neighbour');
  sh('ip link add up0 type veth peer name eth0 netns neighbour');
  sh('ip link set up0 up');
  sh('ip address add 192.0.2.1/24 dev up0');
  sh('ip -n neighbour address add 192.0.2.9/24 dev eth0');
  sh('ip -n neighbour link set eth0 up');
  mkdirSync('/etc/weft', { recursive: true });
  writeFileSync('/etc/weft/weft.json', '{"isolation": "network", "egress": {"deny": ["169.254.169.254"]}}');
  sh(`ip netns add ${ALLOC}`);
  const added = weft(
    'run',
    'add',
    '--conflist',
    LIST,
    '--netns',
    ALLOC,
    '--id',
    ALLOC,
    '--port',
    '9002:80',
    '--cni-args',
    CNI_ARGS,
  );
  assert.is(added.status, 0, added.stderr);
});

test('a healthy attachment: exit status 0, and the document is as its schema says', () => {
  const { exitCode, attachments, networks, policy, agent, problems } = statusOf();
  assert.is(exitCode, 0);
  const [one, ...others] = attachments;
  assert.equal(others, []);
  assert.equal(
    [one?.container, one?.job, one?.group, one?.state, one?.health, one?.problems, one?.backend],
    [ALLOC, 'countdash', 'dashboard', 'running', 'ok', [], 'iptables'],
  );
  assert.equal(
    one?.ports.map(({ host, container, protocol }) => [host, container, protocol]),
    [
      [9002, 80, 'tcp'],
      [9002, 80, 'udp'],
    ],
  );
  assert.equal(networks, [
    {
      name: 'nomad',
      bridge: 'nomad',
      attachments: 1,
      pools: [{ subnet: '172.26.64.0/20', size: 4093, used: 1 }],
    },
  ]);
  assert.equal(policy, { isolation: 'network', deny: ['169.254.169.254/32'], allow: [] });
  assert.equal([agent.state, problems], ['not running', []]);
  const { status, stdout, stderr } = weft('status');
  assert.equal([status, stderr], [0, '']);
  assert.match(stdout, /^9a8e1b52  countdash  dashboard  172\.26\.64\.2  9002->80  iptables  \d+s  +ok$/m);
  assert.match(weft('leases').stdout, /^nomad +172\.26\.64\.0\/20 +1 +4092$/m);
});

test('show: the stations of both directions with their rules; by id prefix, namespace and port', () => {
  const shown = weft('show', '9a8e');
  assert.equal([shown.status, shown.stderr], [0, '']);
  const stations = [...shown.stdout.matchAll(/^ {2}[ox] (\S+)/gm)].map(([, name]) => name);
  assert.equal(stations, [
    ...['outside', 'DNAT', 'forward', 'bridge', 'veth', 'eth0', 'task'],
    ...['task', 'eth0', 'veth', 'bridge', 'policy', 'forward', 'masquerade', 'outside'],
  ]);
  assert.match(shown.stdout, /nat CNI-DN-\w+: \[0:0\] -p tcp .*--to-destination 172\.26\.64\.2:80/);
  assert.match(shown.stdout, /filter CNI-FORWARD: \[\d+:\d+\] -s 172\.26\.64\.2\/32 -j ACCEPT/);
  assert.match(shown.stdout, /inet weft_policy from_networks: ip daddr 169\.254\.169\.254 counter packets 0/);
  assert.match(shown.stdout, /nat POSTROUTING: .*-s 172\.26\.64\.2\/32/);
  for (const target of [`/var/run/netns/${ALLOC}`, '9002'])
    assert.match(weft('show', target).stdout, new RegExp(`^${ALLOC}  job countdash`));
  assert.match(weft('show', 'nobody').stderr, /no attachment of this host is called "nobody"/);
  assert.is(weft('show').status, 2);
});

test('show --svg draws the same; --json is as its schema says; only one of the forms', () => {
  assert.is(weft('show', ALLOC, '--svg', '/run/path.svg').status, 0);
  const svg = readFileSync('/run/path.svg', 'utf8');
  assert.is([...svg.matchAll(/<g>/g)].length, 15);
  assert.match(svg, />DNAT<.*>ports 9002/);
  const { status, stdout } = weft('show', '9002', '--json');
  const { attachment, inbound, outbound } = pathSchema.parse(JSON.parse(stdout));
  assert.equal([status, attachment.container, attachment.ports[0]?.host], [0, ALLOC, 9002]);
  assert.equal([inbound.length, outbound.length], [7, 8]);
  assert.is(inbound[1]?.rules[0]?.chain.slice(0, 11), 'nat CNI-DN-');
  for (const wrong of [
    [ALLOC, '--json', '--trace'],
    [ALLOC, '--netns', ALLOC],
  ])
    assert.is(weft('show', ...wrong).status, 2);
});

test('show --trace prints the verdict of each packet: two at once, on iptables and nftables; they leave nothing', async () => {
  const [other, file] = ['nftables-1', '/etc/weft/weft.json'];
  const before = readFileSync(file, 'utf8');
  writeFileSync(file, before.replace('{', '{"backend": "nftables", '));
  sh(`ip netns add ${other}`);
  const options = ['--conflist', LIST, '--netns', other, '--id', other];
  assert.is(weft('run', 'add', ...options, '--port', '9003:80').status, 0);
  const [iptables = '', nftables = ''] = await traces([ALLOC, 9002], [other, 9003]);
  assert.match(iptables, new RegExp(`${HEADER}${DNAT_BY_IPTABLES}`, 'm'));
  assert.match(nftables, new RegExp(`${HEADER}( {2}ip weft_hostports .*\\n)+`, 'm'));
  assert.equal(
    [/dport 9003|weft_trace/.test(iptables), /dport 9002|weft_trace/.test(nftables)],
    [false, false],
  );
  assert.not.match(nft('list tables'), /weft_trace/);
  assert.is(weft('run', 'del', ...options).status, 0);
  writeFileSync(file, before);
});

test('damage: exit status 1, what is missing, and the same attachment unchecked', () => {
  sh('iptables -t nat -F CNI-HOSTPORT-DNAT');
  const { exitCode, attachments } = statusOf();
  assert.equal([exitCode, attachments[0]?.health], [1, 'failed']);
  assert.match(attachments[0]?.problems.join() ?? '', /^portmap: /);
  const shown = weft('show', ALLOC);
  assert.is(shown.status, 1);
  assert.match(shown.stdout, /^ {2}x DNAT .*\n {2}\| {3}missing: .*CNI-HOSTPORT-DNAT/m);
  const unchecked = statusOf('--no-check');
  assert.equal([unchecked.exitCode, unchecked.attachments[0]?.health], [0, 'unchecked']);
  nft('delete table inet weft_policy');
  assert.match(
    weft('status').stdout,
    /^warning {2}\S+: firewall: the policy of \/etc\/weft\/weft\.json has changed/m,
  );
  sh('ip link del nomad');
});

test('a mistake in weft.json; a container that is gone; wrong usage', () => {
  writeFileSync('/etc/weft/weft.json', '{"isolatoin": "network"}');
  sh(`ip netns del ${ALLOC}`);
  const { exitCode, attachments, problems } = statusOf();
  assert.equal([exitCode, attachments[0]?.state, attachments[0]?.health], [1, 'gone', 'unchecked']);
  assert.match(problems.join(), /unknown key "isolatoin"/);
  assert.is(weft('status', 'now').status, 2);
  assert.match(weft('help', 'status').stdout, /^Exit status: 0 /m);
});

test.run();
