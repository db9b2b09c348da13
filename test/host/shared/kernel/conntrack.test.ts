import { spawn, type ChildProcess } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { listEntriesRequest } from '../../../../shared/kernel/conntrack-codec.ts';
import { deleteConntrack, maybeTracked, type Flows } from '../../../../shared/kernel/conntrack.ts';
import { inNamespace } from '../../../../shared/kernel/namespace.ts';
import { dump } from '../../../../shared/kernel/netlink/conversation.ts';
import { NetlinkSocket } from '../../../../shared/kernel/netlink/socket.ts';
import { suite } from '../../../support/suite.ts';
import { makeNamespace, run } from '../../../support/kernel.ts';

const test = suite('conntrack', { limit: 60 });

/** Entries of one family as conntrack(8) lists them, one per line. */
const table = (family: 'ipv4' | 'ipv6' = 'ipv4'): string[] =>
  run('conntrack', '-L', '-f', family)
    .split('\n')
    .filter((line) => line !== '');

interface Flow {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly to: string;
  readonly port: number;
  readonly container: string;
  readonly client: string;
  readonly clientPort?: number;
}

function insert({ protocol, to, port, container, client, clientPort = 5000 }: Flow): void {
  const state = { tcp: ['--state', 'ESTABLISHED'], sctp: ['--state', 'ESTABLISHED'], udp: [] }[protocol];
  const extra = protocol === 'sctp' ? ['--orig-vtag', '1', '--reply-vtag', '2'] : [];
  run(
    'conntrack',
    '-I',
    '-p',
    protocol,
    '-t',
    '600',
    '-u',
    'ASSURED',
    ...state,
    ...extra,
    '-s',
    client,
    '-d',
    to,
    '--sport',
    `${clientPort}`,
    '--dport',
    `${port}`,
    '-r',
    container,
    '-q',
    client,
    '--reply-port-src',
    '80',
    '--reply-port-dst',
    `${clientPort}`,
  );
}

const WEB_A: Flow = {
  protocol: 'udp',
  to: '10.0.0.1',
  port: 8080,
  container: '10.1.1.1',
  client: '10.9.9.1',
};
const WEB_B: Flow = {
  protocol: 'udp',
  to: '10.0.0.2',
  port: 8080,
  container: '10.1.1.2',
  client: '10.9.9.2',
};
const OTHER_PORT: Flow = {
  protocol: 'udp',
  to: '10.0.0.1',
  port: 8081,
  container: '10.1.1.1',
  client: '10.9.9.3',
};
const TCP: Flow = { protocol: 'tcp', to: '10.0.0.1', port: 8080, container: '10.1.1.1', client: '10.9.9.4' };
const SIX: Flow = { protocol: 'udp', to: 'fd00::1', port: 8080, container: 'fd01::1', client: 'fd09::1' };

test.beforeEach(() => {
  run('conntrack', '-F');
  for (const flow of [WEB_A, WEB_B, OTHER_PORT, TCP, SIX]) insert(flow);
});

/** The clients whose flows are left. */
const left = (): string[] =>
  [...table(), ...table('ipv6')].map((line) => /src=(\S+)/.exec(line)?.[1] ?? line).sort();

test('deletes by protocol and original port, both families', () => {
  assert.is(deleteConntrack({ protocol: 'udp', originalPort: 8080 }), 3);
  assert.equal(left(), [OTHER_PORT.client, TCP.client]);
});

test('deletes by original address', () => {
  assert.is(deleteConntrack({ protocol: 'udp', originalPort: 8080, originalAddress: '10.0.0.2' }), 1);
  assert.equal(left(), [WEB_A.client, OTHER_PORT.client, TCP.client, SIX.client].sort());
});

test('deletes by the container that replies', () => {
  assert.is(deleteConntrack({ protocol: 'udp', originalPort: 8080, replySource: '10.1.1.1' }), 1);
  assert.equal(left(), [WEB_B.client, OTHER_PORT.client, TCP.client, SIX.client].sort());
  assert.is(deleteConntrack({ protocol: 'udp', originalPort: 8080, replySource: 'fd01:0::1' }), 1);
  assert.equal(left(), [WEB_B.client, OTHER_PORT.client, TCP.client].sort());
});

test('deletes by a range of ports', () => {
  assert.is(deleteConntrack({ protocol: 'udp', originalPort: 8070, lastPort: 8080 }), 3);
  assert.equal(left(), [OTHER_PORT.client, TCP.client]);
  assert.is(
    deleteConntrack({ protocol: 'udp', originalPort: 1, lastPort: 65_535, replySource: '10.9.1.1' }),
    0,
  );
});

test('several criteria must all match', () => {
  const filter = { protocol: 'udp', originalPort: 8080, originalAddress: '10.0.0.1' } as const;
  assert.is(deleteConntrack({ ...filter, replySource: '10.1.1.2' }), 0);
  assert.is(left().length, 5);
  assert.is(deleteConntrack({ ...filter, replySource: '10.1.1.1' }), 1);
  assert.is(deleteConntrack({ ...filter, replySource: '10.1.1.1' }), 0);
});

test('tcp and sctp are distinguished', () => {
  assert.is(deleteConntrack({ protocol: 'tcp', originalPort: 8080 }), 1);
  insert({ protocol: 'sctp', to: '10.0.0.1', port: 8080, container: '10.1.1.1', client: '10.9.9.5' });
  assert.is(deleteConntrack({ protocol: 'sctp', originalPort: 8080 }), 1);
  assert.is(left().length, 4);
});

test('the kernel filters IPv4: of many entries it lists only those that match', () => {
  using socket = NetlinkSocket.open(12);
  const count = (filter: { destination?: Buffer; replySource?: Buffer }): number =>
    dump(socket, listEntriesRequest(2, { protocol: 17, destinationPort: 8080, ...filter })).length;
  assert.is(count({}), 2);
  assert.is(count({ destination: Buffer.of(10, 0, 0, 2) }), 1);
  assert.is(count({ replySource: Buffer.of(10, 1, 1, 1) }), 1);
  assert.is(count({ destination: Buffer.of(10, 0, 0, 2), replySource: Buffer.of(10, 1, 1, 1) }), 0);
});

test('IPv6 is correct whether or not the kernel inverts the comparison', () => {
  insert({ ...SIX, to: 'fd00::2', container: 'fd01::2', client: 'fd09::2' });
  assert.is(deleteConntrack({ protocol: 'udp', originalPort: 8080, originalAddress: 'fd00::2' }), 1);
  assert.ok(left().includes(SIX.client) && !left().includes('fd09::2'));
  assert.is(deleteConntrack({ protocol: 'udp', originalPort: 8080, originalAddress: 'fd00::2' }), 0);
  assert.is(deleteConntrack({ protocol: 'udp', originalPort: 8080, replySource: SIX.container }), 1);
});

test('more entries than fit into one write', async () => {
  run('nft', 'add table ip t; add chain ip t o { type filter hook output priority 0; }');
  run('nft', 'add rule ip t o ct state new accept');
  const sockets = Array.from({ length: 150 }, () => createSocket('udp4'));
  for (const socket of sockets) {
    socket.on('error', () => undefined);
    await new Promise((sent) => socket.send('?', 8080, '127.0.0.1', sent));
  }
  assert.is(
    table().filter((line) => line.includes('dst=127.0.0.1') && line.includes('dport=8080')).length,
    150,
  );
  assert.is(deleteConntrack({ protocol: 'udp', originalPort: 8080 }), 153);
  assert.equal(left(), [OTHER_PORT.client, TCP.client]);
  for (const socket of sockets) socket.close();
  run('nft', 'delete table ip t');
});

test('only entries of the caller’s namespace', () => {
  const box = makeNamespace('box');
  assert.is(
    inNamespace(box, () => deleteConntrack({ protocol: 'udp', originalPort: 8080 })),
    0,
  );
  assert.is(left().length, 5);
});

/** Answers every datagram with its name, in a namespace of its own. */
async function startServer(name: string, address: string): Promise<ChildProcess> {
  const script = `
    const socket = require('node:dgram').createSocket('udp4');
    socket.on('message', (_, from) => socket.send('${name}', from.port, from.address));
    socket.bind(53, '${address}', () => console.log('ready'));`;
  const child = spawn('ip', ['netns', 'exec', name, process.execPath, '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}

/** Asks from one and the same port each time, so that all questions are one flow. */
function ask(): string {
  const script = `
    const socket = require('node:dgram').createSocket('udp4');
    socket.on('message', (answer) => { console.log(String(answer)); socket.close(); });
    socket.bind(40000, '10.20.0.2', () => socket.send('?', 9999, '10.20.0.1'));
    setTimeout(() => process.exit(1), 5000).unref();`;
  return run('ip', 'netns', 'exec', 'client', process.execPath, '-e', script).trim();
}

test('a live UDP flow through a DNAT goes to the new container after its entry is removed, and not before', async () => {
  run('sysctl', '-qw', 'net.ipv4.ip_forward=1');
  for (const [name, net] of [
    ['client', '10.20.0'],
    ['old', '10.20.1'],
    ['new', '10.20.2'],
  ] as const) {
    makeNamespace(name);
    run('ip', 'link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
    run('ip', 'addr', 'add', `${net}.1/24`, 'dev', name);
    run('ip', 'link', 'set', name, 'up');
    run('ip', '-n', name, 'addr', 'add', `${net}.2/24`, 'dev', 'eth0');
    run('ip', '-n', name, 'link', 'set', 'eth0', 'up');
    run('ip', '-n', name, 'route', 'add', 'default', 'via', `${net}.1`);
  }
  run('nft', 'add table ip t; add chain ip t p { type nat hook prerouting priority -100; }');
  run('nft', 'add rule ip t p udp dport 9999 dnat to 10.20.1.2:53');
  const servers = [await startServer('old', '10.20.1.2'), await startServer('new', '10.20.2.2')];
  try {
    assert.is(ask(), 'old');
    run('nft', 'flush chain ip t p; add rule ip t p udp dport 9999 dnat to 10.20.2.2:53');
    assert.is(ask(), 'old', 'the kernel remembers the flow');
    assert.is(deleteConntrack({ protocol: 'udp', originalPort: 9999, replySource: '10.20.2.2' }), 0);
    assert.is(deleteConntrack({ protocol: 'udp', originalPort: 9999, replySource: '10.20.1.2' }), 1);
    assert.is(ask(), 'new');
  } finally {
    for (const server of servers) server.kill('SIGKILL');
  }
});

const udp = (originalPort: number, lastPort = originalPort): Flows => ({
  protocol: 'udp',
  originalPort,
  lastPort,
});

test("flows are looked up in the list of the caller's namespace", () => {
  const [busy, idle] = [makeNamespace('busy'), makeNamespace('idle')];
  inNamespace(busy, () => {
    assert.equal(maybeTracked([udp(9002)]), [], 'nothing is tracked yet');
    const options = '-I -p udp -t 600 -s 192.0.2.9 -d 192.0.2.1 --sport 5000 --dport 9002';
    run('conntrack', ...options.split(' '));
    const found = maybeTracked([udp(9001), udp(9002), udp(9000, 9005)]);
    const exact = existsSync('/proc/thread-self/net/nf_conntrack');
    assert.equal(found, exact ? [udp(9002), udp(9000, 9005)] : [udp(9001), udp(9002), udp(9000, 9005)]);
  });
  assert.equal(
    inNamespace(idle, () => maybeTracked([udp(9002)])),
    [],
  );
});

test.run();
