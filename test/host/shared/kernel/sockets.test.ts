import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type ListenOptions, type Server } from 'node:net';
import * as assert from 'uvu/assert';
import { listeningInProc, listeningSockets, socketInodesOf } from '../../../../shared/kernel/sockets.ts';
import { run } from '../../../support/kernel.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('sockets', { limit: 30 });

async function listen(options: ListenOptions): Promise<Server> {
  const server = createServer().listen(options);
  await once(server, 'listening');
  return server;
}

test('lists what listens, of both families, as /proc does', async () => {
  run('ip', 'link', 'set', 'lo', 'up');
  run('ip', 'addr', 'add', '192.0.2.1/32', 'dev', 'lo');
  const servers = [
    await listen({ host: '0.0.0.0', port: 9001 }),
    await listen({ host: '127.0.0.1', port: 9002 }),
    await listen({ host: '::', port: 9003 }),
    await listen({ host: '::', port: 9004, ipv6Only: true }),
    await listen({ host: '::1', port: 9005 }),
    await listen({ host: '::ffff:192.0.2.1', port: 9006 }),
  ];
  const bound = createSocket('udp4').bind(9007, '192.0.2.1');
  const connected = createSocket('udp4').bind(9008);
  const both = createSocket('udp6').bind(9009);
  await Promise.all([bound, connected, both].map((socket) => once(socket, 'listening')));
  connected.connect(9007, '192.0.2.1');
  await once(connected, 'connect');
  const shown = (['tcp', 'udp'] as const)
    .flatMap((protocol) => listeningSockets(protocol))
    .sort((a, b) => a.port - b.port);
  assert.equal(
    shown.map(({ protocol, address, port, ipv6Only }) => `${protocol} ${address} ${port} ${ipv6Only}`),
    [
      'tcp 0.0.0.0 9001 false',
      'tcp 127.0.0.1 9002 false',
      'tcp :: 9003 false',
      'tcp :: 9004 true',
      'tcp ::1 9005 true',
      'tcp 192.0.2.1 9006 false',
      'udp 192.0.2.1 9007 false',
      'udp :: 9009 false',
    ],
  );
  const own = socketInodesOf(process.pid);
  assert.ok(shown.every(({ inode }) => own.includes(inode)));
  const inProc = (['tcp', 'udp'] as const)
    .flatMap((protocol) => listeningInProc(protocol))
    .sort((a, b) => a.port - b.port);
  assert.equal(
    inProc,
    shown.map((socket) => ({ ...socket, ipv6Only: false })),
  );
  for (const one of [...servers, bound, connected, both]) one.close();
});

test('a process that is gone has no sockets', () => assert.equal(socketInodesOf(2 ** 22), []));

test.run();
