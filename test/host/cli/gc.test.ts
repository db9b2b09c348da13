/** `weft gc` and the agent's collection: leaks of each kind beside containers that only look dead. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import type * as z from 'zod/mini';
import * as assert from 'uvu/assert';
import { reportSchema } from '../../../cli/gc.ts';
import { identify } from '../../../plugins/bridge/identity.ts';
import { sh } from '../../e2e/support/client-host.ts';
import { executable } from '../../support/executables.ts';
import { NodeAgent } from '../../support/node-agent.ts';
import { suite } from '../../support/suite.ts';
import { useVariant } from '../../support/variants.ts';
import { addContainer, networkList, rules, weftRepair, type Container } from '../agent/repair/scene.ts';

const test = suite('weft gc', { limit: 60 });
const RESULTS = '/var/lib/cni/results';
const LEASES = '/var/lib/cni/networks';
const HOUR_AGO = Date.now() / 1000 - 3600;
const lists = [networkList('iptables', 0), networkList('nftables', 1)] as const;
const running: Container[] = [];
let before = { rules: '', files: '', links: '' };

function add(network: 0 | 1, number: number): Container {
  const container = addContainer(lists[network], number);
  for (const file of filesOf(container.id)) utimesSync(file, HOUR_AGO, HOUR_AGO);
  return container;
}

/** Cached results and leases that name a container. */
function filesOf(id: string): string[] {
  return [
    ...readdirSync(RESULTS).map((name) => `${RESULTS}/${name}`),
    ...readdirSync(LEASES).flatMap((network) =>
      readdirSync(`${LEASES}/${network}`).map((name) => `${LEASES}/${network}/${name}`),
    ),
  ].filter((file) => !file.endsWith('.json') && `${file}\n${readFileSync(file, 'utf8')}`.includes(id));
}

function removeFiles(folder: string, id: string): void {
  for (const file of filesOf(id).filter((one) => one.startsWith(folder))) rmSync(file);
}

/** Of the host; this test's own /proc hides the true one. */
function setUptime(seconds: number): void {
  writeFileSync('/run/uptime', `${seconds}.00 1.00\n`);
}

/** The namespace loses its name, and a process holds it. */
function unname(id: string): void {
  sh(`ip netns exec ${id} sleep 1000 >/dev/null 2>&1 </dev/null &
    until [ -n "$(ip netns pids ${id})" ]; do sleep 0.05; done; ip netns del ${id}`);
}

/** The kernel deletes interfaces of a namespace a little later. */
function end(id: string): void {
  sh(
    `ip netns del ${id}; for i in $(seq 100); do ip link | grep -q "/${id}/" || exit 0; sleep 0.05; done; exit 1`,
  );
}

/** What may change: the newest address given out is no leak. */
function snapshot(): typeof before {
  return {
    rules: rules(),
    files: sh(
      `find ${RESULTS} ${LEASES} /etc/netns -type f ! -name 'last_reserved*' ! -name '*.json' | sort`,
    ),
    links: sh("ip -br link | sed 's/@.*//; s/ .*//' | sort"),
  };
}

function weftGc(...options: string[]): z.output<typeof reportSchema> & { exitCode: number | null } {
  const { status, stdout, stderr } = spawnSync(executable('weft'), ['gc', '--json', ...options], {
    encoding: 'utf8',
  });
  assert.is(stderr, '');
  return { ...reportSchema.parse(JSON.parse(stdout)), exitCode: status };
}

const leaked = (report: ReturnType<typeof weftGc>): string[] =>
  report.leaks.map(({ network, container }) => `${network}/${container}`).sort();

test.before(() => {
  useVariant('nft');
  setUptime(86_400);
  sh('mount --bind /run/uptime /proc/uptime');
  for (const network of [0, 1] as const) running.push(add(network, 1));
  mkdirSync('/etc/netns/net0-c1', { recursive: true });
  writeFileSync(
    '/etc/netns/net0-c1/resolv.conf',
    '# weft: network=net0 container=net0-c1 interface=eth0\nnameserver 192.0.2.1\n',
  );
  // A namespace without a name that a process holds; the second one's cached result names no namespace, and its lease is lost.
  for (const number of [2, 3]) running.push(add(0, number));
  unname('net0-c2');
  const cached = `${RESULTS}/net0-net0-c3-eth0`;
  const document = JSON.parse(readFileSync(cached, 'utf8')) as Record<string, unknown>;
  delete document['netns'];
  writeFileSync(cached, JSON.stringify(document));
  utimesSync(cached, HOUR_AGO, HOUR_AGO);
  removeFiles(LEASES, 'net0-c3');
  unname('net0-c3');
  // Rules alone name it.
  running.push(add(1, 2));
  removeFiles('/var', 'net1-c2');
  unname('net1-c2');
  // Another runtime's: it caches no results, and its namespaces have names of their own.
  sh('ip netns add cni-4711; ip -n cni-4711 addr add 10.9.0.2/24 dev lo');
  mkdirSync(`${LEASES}/other`, { recursive: true });
  writeFileSync(`${LEASES}/other/10.9.0.2`, 'containerd1\r\neth0');
  utimesSync(`${LEASES}/other/10.9.0.2`, HOUR_AGO, HOUR_AGO);
  // In the other variant of iptables.
  useVariant('legacy');
  running.push(add(0, 5));
  useVariant('nft');
  // Gone, but younger than ten minutes.
  addContainer(lists[0], 4);
  end('net0-c4');
  before = snapshot();
});

test.after(() => NodeAgent.killAll());

/** One leak of each kind. @returns the containers that are gone */
function leak(): string[] {
  // A DEL that never came, on both back ends.
  for (const network of [0, 1] as const) {
    add(network, 11);
    end(`net${network}-c11`);
  }
  // The cached result is lost: a lease and rules.
  add(0, 12);
  removeFiles(RESULTS, 'net0-c12');
  // Only rules.
  for (const network of [0, 1] as const) {
    add(network, 13);
    removeFiles('/var', `net${network}-c13`);
    end(`net${network}-c13`);
  }
  end('net0-c12');
  // Only rules of the other variant of iptables: the node was moved since.
  useVariant('legacy');
  add(0, 16);
  useVariant('nft');
  removeFiles('/var', 'net0-c16');
  end('net0-c16');
  // As after a reboot: a cached result whose address another container has by now.
  const cached = JSON.parse(readFileSync(`${RESULTS}/net0-net0-c1-eth0`, 'utf8')) as object;
  const rebooted = { ...cached, containerId: 'rebooted', netns: '/var/run/netns/rebooted' };
  writeFileSync(`${RESULTS}/net0-rebooted-eth0`, JSON.stringify(rebooted));
  utimesSync(`${RESULTS}/net0-rebooted-eth0`, HOUR_AGO, HOUR_AGO);
  // A veth pair that leads to no container, and a file for a namespace that is gone.
  const [pair = ''] = identify({ network: 'net0', containerId: 'pair', ifname: 'eth0' }).hostNames;
  sh(`ip link add ${pair} type veth peer name leak1; ip link set ${pair} alias weft:net0/pair/eth0`);
  mkdirSync('/etc/netns/file');
  const file = '/etc/netns/file/resolv.conf';
  writeFileSync(file, '# weft: network=net0 container=file interface=eth0\nnameserver 192.0.2.1\n');
  utimesSync(file, HOUR_AGO, HOUR_AGO);
  return [
    ...['net0/file', 'net0/net0-c11', 'net0/net0-c12', 'net0/net0-c13', 'net0/net0-c16', 'net0/pair'],
    ...['net0/rebooted', 'net1/net1-c11', 'net1/net1-c13'],
  ];
}

test('a host without leaks: what only looks dead is kept, with the reason', () => {
  const { exitCode, leaks, doubts } = weftGc();
  assert.equal([exitCode, leaks], [0, []]);
  assert.equal(
    doubts.map(({ container, reason }) => `${container}: ${reason.replace(/veth\w+/, 'vethN')}`),
    [
      'net0-c4: younger than 10 minutes',
      'net1-c2: interface vethN leads to a network namespace of another name',
    ],
  );
  assert.equal(snapshot(), before);
});

test('leaks of each kind: --dry-run names them, gc removes them and nothing else', () => {
  const expected = leak();
  const withLeaks = snapshot();
  // Just after the start of the host, Nomad may not have added its allocations again.
  setUptime(599);
  assert.equal(weftGc().leaks, []);
  setUptime(86_400);
  const dry = weftGc('--dry-run');
  assert.equal([dry.exitCode, leaked(dry)], [1, expected]);
  assert.equal(snapshot(), withLeaks);
  const [first] = dry.leaks.filter(({ container }) => container === 'net0-c11');
  assert.ok(first);
  assert.is((first.ageSeconds ?? 0) >= 3600, true);
  assert.match(
    first.pieces.join('\n'),
    /^cached result .*\nlease .*\nlease .*\n(chain CNI-\w+ of table nat .*\n)+/,
  );
  const report = weftGc();
  assert.equal(leaked(report), expected);
  assert.equal(
    report.leaks.filter(({ removed }) => !removed),
    [],
  );
  assert.is(report.exitCode, 0);
  assert.equal(snapshot(), before);
  assert.equal(weftGc().leaks, []);
  assert.equal(weftRepair('--dry-run').missing, []);
});

test('a list with disableGC stays', () => {
  add(0, 14);
  const cached = `${RESULTS}/net0-net0-c14-eth0`;
  const document = JSON.parse(readFileSync(cached, 'utf8')) as { config: string };
  const list = JSON.parse(Buffer.from(document.config, 'base64').toString()) as object;
  const config = Buffer.from(JSON.stringify({ ...list, disableGC: true })).toString('base64');
  writeFileSync(cached, JSON.stringify({ ...document, config }));
  utimesSync(cached, HOUR_AGO, HOUR_AGO);
  end('net0-c14');
  const { exitCode, leaks } = weftGc();
  assert.equal(
    [exitCode, leaks.map(({ removed, error }) => [removed, error])],
    [1, [[false, 'its list has "disableGC", or it was added again']]],
  );
  assert.ok(existsSync(cached));
  writeFileSync(cached, JSON.stringify(document));
  utimesSync(cached, HOUR_AGO, HOUR_AGO);
  assert.is(weftGc().exitCode, 0);
  assert.equal(snapshot(), before);
});

test('the agent logs each leak as one line, and removes it with "gc": "on" only', async () => {
  add(0, 15);
  end('net0-c15');
  const withLeak = snapshot();
  const until = async (agent: NodeAgent, pattern: RegExp): Promise<void> => {
    for (const end = Date.now() + 15_000; Date.now() < end;) {
      if (pattern.test(agent.log)) return;
      await pause(100);
    }
    assert.unreachable(`${pattern.source} is not in the log: ${agent.log}`);
  };
  const logging = await NodeAgent.start();
  await until(
    logging,
    /gc: leak network=net0 container=net0-c15 age=3\d{3}s: network namespace .* does not exist.*; cached result /,
  );
  assert.is(await logging.stop(), 0);
  assert.not.match(logging.log, 'gc: removed');
  assert.equal(snapshot(), withLeak);
  mkdirSync('/etc/weft', { recursive: true });
  writeFileSync('/etc/weft/weft.json', '{"gc": "on"}');
  const removing = await NodeAgent.start();
  await until(removing, /gc: removed network=net0 container=net0-c15 pieces=\d+ ms=\d+/);
  assert.is(await removing.stop(), 0);
  assert.equal(snapshot(), before);
});

test('wrong usage, and help', () => {
  assert.is(spawnSync(executable('weft'), ['gc', '--all']).status, 2);
  assert.match(
    spawnSync(executable('weft'), ['help', 'gc'], { encoding: 'utf8' }).stdout,
    /^usage: weft gc /,
  );
});

test.run();
