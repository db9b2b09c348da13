/** Answers UDP datagrams and TCP connections on port 7777, both families, with the sender's address. */
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';

const PORT = 7777;
const udp = createSocket({ type: 'udp6', ipv6Only: false });
udp.on('message', (_, from) => udp.send(from.address.replace('::ffff:', ''), from.port, from.address));
udp.bind(PORT, '::', () => {
  const tcp = createServer((socket) => {
    socket.on('error', () => undefined).end((socket.remoteAddress ?? '').replace('::ffff:', ''));
  });
  tcp.listen({ port: PORT, host: '::' }, () => process.stdout.write('ready\n'));
});
