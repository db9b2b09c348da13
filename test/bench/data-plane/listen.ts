/** usage: listen.ts PORT. Accepts and forgets; the queue is longer than what one measurement opens. */
import { createServer } from 'node:net';

const server = createServer((socket) => socket.on('error', () => undefined).destroy());
server.listen({ port: Number(process.argv[2]), host: '0.0.0.0', backlog: 4096 }, () =>
  process.stdout.write('ready\n'),
);
