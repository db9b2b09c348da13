/**
 * A program of the mesh, told what to do over stdin, a line of JSON at a time: the called service (`serve`), and a caller that keeps
 * connections, speaks HTTP/2 and gRPC, half-closes, and transfers much.
 *
 * The service decides by the first byte of a connection:
 *   P  (of HTTP/2's preface) HTTP/2: /hello answers its body, /count/Watch is a gRPC stream
 *   E  answers each line with the same line
 *   H  reads to the end, then answers `<bytes> <sha256>` and ends
 *   S  ends its own direction at once, and goes on reading; the next Q answers how many bytes came
 *   D  sends the number of bytes that follow, then their sha256
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectHttp2, createServer as createHttp2, type ServerHttp2Stream } from 'node:http2';
import { connect, createServer, type Socket } from 'node:net';
import { createInterface, type Interface } from 'node:readline';

export type MeshOrder =
  | { readonly do: 'serve'; readonly port: number }
  | { readonly do: 'open'; readonly host: string; readonly port: number }
  | { readonly do: 'say'; readonly connection: number; readonly text: string }
  | { readonly do: 'http2' | 'grpc' | 'half-close'; readonly host: string; readonly port: number }
  | { readonly do: 'transfer'; readonly host: string; readonly port: number; readonly megabytes: number }
  | { readonly do: 'call-often'; readonly host: string; readonly port: number }
  | { readonly do: 'stop-calling' };

const TIMEOUT_MS = 20_000;
const MEGABYTE = 1024 * 1024;
/** Not compressible, and different at each place of a block. */
const BLOCK = Buffer.concat(
  Array.from({ length: MEGABYTE / 32 }, (_, at) => createHash('sha256').update(String(at)).digest()),
);

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const { id, order } = JSON.parse(line) as { id: number; order: MeshOrder };
    const say = (answer: string): boolean => process.stdout.write(`${JSON.stringify({ id, answer })}\n`);
    obey(order).then(say, (error: unknown) => {
      const { code, message } = error as NodeJS.ErrnoException;
      say(`error ${code ?? message}`);
    });
  })
  .on('close', () => process.exit(0));

async function obey(order: MeshOrder): Promise<string> {
  switch (order.do) {
    case 'serve':
      return serve(order.port);
    case 'open':
      return open(order.host, order.port);
    case 'say':
      return say(order.connection, order.text);
    case 'http2':
      return http2(order.host, order.port);
    case 'grpc':
      return grpc(order.host, order.port);
    case 'half-close':
      return halfClose(order.host, order.port);
    case 'transfer':
      return transfer(order.host, order.port, order.megabytes);
    case 'call-often':
      return callOften(order.host, order.port);
    case 'stop-calling':
      return stopCalling();
  }
}

/** Resolves to how many bytes came after the service had ended its direction. */
let bytesAfterEnd = Promise.resolve('none');

async function serve(port: number): Promise<string> {
  const http2Server = createHttp2();
  http2Server.on('stream', (stream: ServerHttp2Stream, headers) =>
    answerStream(stream, String(headers[':path'])),
  );
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    socket.once('data', (first: Buffer) => {
      socket.pause();
      socket.unshift(first);
      const kind = String.fromCharCode(first[0] ?? 0);
      if (kind === 'P') http2Server.emit('connection', socket);
      else void answerRaw(kind, socket).catch(() => socket.destroy());
    });
  });
  server.listen(port);
  await once(server, 'listening');
  return 'serving';
}

async function answerRaw(kind: string, socket: Socket): Promise<void> {
  if (kind === 'E') for await (const line of createInterface({ input: socket })) socket.write(`${line}\n`);
  if (kind === 'H') socket.end(await digestOf(socket));
  if (kind === 'S') {
    socket.end('bye');
    bytesAfterEnd = digestOf(socket).then(
      (digest) => digest.split(' ')[0] ?? '',
      (error: unknown) => String(error),
    );
  }
  if (kind === 'Q') socket.end(await bytesAfterEnd);
  if (kind === 'D') await sendMuch(socket);
}

async function sendMuch(socket: Socket): Promise<void> {
  const [line] = (await once(createInterface({ input: socket }), 'line')) as [string];
  socket.end(await writeBlocks(socket, Number(line.slice(1))));
}

/** @returns `<bytes> <sha256>` of what was written */
async function writeBlocks(socket: Socket, megabytes: number): Promise<string> {
  const hash = createHash('sha256');
  for (let sent = 0; sent < megabytes; sent += 1) {
    hash.update(BLOCK);
    if (!socket.write(BLOCK)) await once(socket, 'drain');
  }
  return `${megabytes * MEGABYTE} ${hash.digest('hex')}`;
}

/** By events: an iteration would destroy the socket at its end, and the answer is still to be sent. */
async function digestOf(socket: Socket): Promise<string> {
  const hash = createHash('sha256');
  let bytes = 0;
  socket.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    bytes += chunk.length;
  });
  socket.resume();
  await once(socket, 'end');
  return `${bytes} ${hash.digest('hex')}`;
}

const GRPC = 'application/grpc';

/** gRPC over HTTP/2: each message behind one byte (not compressed) and its length; the status is a trailer. */
function answerStream(stream: ServerHttp2Stream, path: string): void {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  stream.on('end', () => {
    const body = Buffer.concat(chunks);
    if (path !== '/count/Watch') {
      stream.respond({ ':status': 200 });
      stream.end(body);
      return;
    }
    stream.respond({ ':status': 200, 'content-type': GRPC }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    for (const number of [1, 2, 3]) stream.write(grpcMessage(`${body.subarray(5).toString()} ${number}`));
    stream.end();
  });
}

function grpcMessage(text: string): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(Buffer.byteLength(text), 1);
  return Buffer.concat([head, Buffer.from(text)]);
}

const connections: { socket: Socket; lines: Interface }[] = [];

async function open(host: string, port: number): Promise<string> {
  const socket = await connected(host, port);
  // Kept idle between tests, and closed by them.
  socket.setTimeout(0);
  const lines = createInterface({ input: socket }).on('error', () => undefined);
  connections.push({ socket, lines });
  const connection = connections.length - 1;
  return (await say(connection, 'E first')) === 'E first' ? String(connection) : 'closed';
}

async function say(connection: number, text: string): Promise<string> {
  const one = connections[connection];
  if (one === undefined || one.socket.destroyed || one.socket.readableEnded) return 'closed';
  one.socket.write(`${text}\n`);
  const ended = Promise.race(['end', 'close'].map((event) => once(one.socket, event))).then(() => ['closed']);
  const [line] = (await Promise.race([once(one.lines, 'line'), ended])) as [string];
  return line;
}

/** Twenty requests at once on one connection. */
async function http2(host: string, port: number): Promise<string> {
  const session = connectHttp2(`http://${host}:${port}`);
  session.setTimeout(TIMEOUT_MS, () => session.destroy(new Error('no answer')));
  try {
    const answers = Array.from({ length: 20 }, async (_, at) => {
      const stream = session.request({ ':path': '/hello', ':method': 'POST' });
      stream.end(`hello ${at}`);
      return text(stream);
    });
    return (await Promise.all(answers)).join(' ');
  } finally {
    session.destroy();
  }
}

/** A server stream of three messages: `<message>|<message>|<message> status <grpc-status>`. */
async function grpc(host: string, port: number): Promise<string> {
  const session = connectHttp2(`http://${host}:${port}`);
  session.setTimeout(TIMEOUT_MS, () => session.destroy(new Error('no answer')));
  try {
    const stream = session.request({
      ':path': '/count/Watch',
      ':method': 'POST',
      'content-type': GRPC,
      te: 'trailers',
    });
    let status = 'none';
    stream.on('trailers', (headers) => (status = String(headers['grpc-status'])));
    stream.end(grpcMessage('count'));
    const messages = (await text(stream)).match(/count \d/g) ?? [];
    return `${messages.join('|')} status ${status}`;
  } finally {
    session.destroy();
  }
}

async function text(stream: AsyncIterable<unknown>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

/** The caller ends first and still gets its answer; the service ends first and still gets all that is sent. */
async function halfClose(host: string, port: number): Promise<string> {
  const first = await connected(host, port);
  first.end('Half');
  const answer = await text(first);
  const second = await connected(host, port);
  second.write('S');
  second.resume();
  await once(second, 'end');
  second.end(BLOCK);
  await once(second, 'close');
  const third = await connected(host, port);
  third.write('Q');
  return `${answer.split(' ')[0]} then ${await text(third)}`;
}

/** Sends and receives: `<what was sent> = <what arrived>`, in both directions. */
async function transfer(host: string, port: number, megabytes: number): Promise<string> {
  const up = await connected(host, port);
  up.write('H');
  const hash = createHash('sha256').update('H');
  for (let sent = 0; sent < megabytes; sent += 1) hash.update(BLOCK);
  await writeBlocks(up, megabytes);
  up.end();
  const arrived = await text(up);
  const sent = `${megabytes * MEGABYTE + 1} ${hash.digest('hex')}`;
  const down = await connected(host, port);
  down.write(`D${megabytes}\n`);
  const chunks: Buffer[] = [];
  for await (const chunk of down) chunks.push(chunk as Buffer);
  const all = Buffer.concat(chunks);
  const body = all.subarray(0, megabytes * MEGABYTE);
  const received = `${body.length} ${createHash('sha256').update(body).digest('hex')}`;
  const told = all.subarray(body.length).toString();
  return `up ${sent === arrived ? 'ok' : `${sent} is not ${arrived}`}, down ${received === told ? 'ok' : `${received} is not ${told}`}`;
}

let calling: Promise<string> | undefined;
let wanted = false;

/** A new connection every few milliseconds until `stop-calling`, which answers `<made> made, <failed> failed`. */
async function callOften(host: string, port: number): Promise<string> {
  wanted = true;
  calling = (async () => {
    const errors: string[] = [];
    let made = 0;
    while (wanted) {
      try {
        const socket = await connected(host, port);
        socket.end('Half');
        made += 1;
        const answer = await text(socket);
        if (!answer.startsWith('4 ')) errors.push(`answered "${answer}"`);
      } catch (thrown) {
        errors.push(String((thrown as NodeJS.ErrnoException).code));
      }
      await new Promise((done) => setTimeout(done, 20));
    }
    return `${made > 5 ? 'many' : made} made, ${errors.length} failed ${errors.join(' ')}`.trim();
  })();
  return Promise.resolve('calling');
}

async function stopCalling(): Promise<string> {
  wanted = false;
  return (await calling) ?? 'was not calling';
}

function connected(host: string, port: number): Promise<Socket> {
  return new Promise((done, fail) => {
    const socket = connect({ host, port, allowHalfOpen: true });
    socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error('no answer')));
    socket.once('error', fail);
    socket.once('connect', () => done(socket));
  });
}
