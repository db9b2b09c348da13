/**
 * Listens on many sockets at once and answers each TCP connection and each datagram with one line of JSON: the socket's label and, for
 * TCP, where the client was going before rules changed it. usage: listen.ts UID '[{"protocol","host","port","label"}]'
 * Prints `ready` when all sockets listen, then gives up root for UID.
 */
import { createSocket } from 'node:dgram';
import { createServer, type Socket } from 'node:net';
import { once } from 'node:events';
import { libc } from '../../../../../shared/kernel/libc.ts';

export interface Listener {
  readonly protocol: 'tcp' | 'udp';
  readonly host: string;
  readonly port: number;
  readonly label: string;
}

const [, , uid = '0', spec = '[]'] = process.argv;
await Promise.all(
  (JSON.parse(spec) as Listener[]).map((one) => (one.protocol === 'tcp' ? listenTcp(one) : listenUdp(one))),
);
if (uid !== '0') process.setuid?.(Number(uid));
process.stdout.write('ready\n');

async function listenTcp({ host, port, label }: Listener): Promise<void> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end(`${JSON.stringify({ label, original: originalDestination(socket) })}\n`);
  });
  await once(server.listen({ host, port, ipv6Only: false }), 'listening');
}

async function listenUdp({ host, port, label }: Listener): Promise<void> {
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
  socket.on('message', (_, sender) => socket.send(JSON.stringify({ label }), sender.port, sender.address));
  socket.bind(port, host);
  await once(socket, 'listening');
}

/**
 * SO_ORIGINAL_DST (linux/netfilter_ipv4.h) and IP6T_SO_ORIGINAL_DST are both 80, of levels SOL_IP 0 and SOL_IPV6 41. The answer is a
 * sockaddr: family (2), port (2, network order), address at 4 (IPv4) or 8 (IPv6).
 */
function originalDestination(socket: Socket): string {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const isIpv4 = socket.localFamily === 'IPv4' || socket.localAddress?.startsWith('::ffff:') === true;
  const answer = Buffer.alloc(28);
  const length = Buffer.from(Uint32Array.of(answer.length).buffer);
  if (libc().getsockopt(fd, isIpv4 ? 0 : 41, 80, answer, length) !== 0) return 'none';
  const port = answer.readUInt16BE(2);
  if (isIpv4) return `${answer.subarray(4, 8).join('.')}:${port}`;
  const groups = Array.from({ length: 8 }, (_, at) => answer.readUInt16BE(8 + 2 * at).toString(16));
  return `[${groups.join(':').replace(/(^|:)0(:0)+(:|$)/, '::')}]:${port}`;
}
