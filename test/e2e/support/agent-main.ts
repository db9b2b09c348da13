import { createSocket } from 'node:dgram';
import { connect, createServer, isIPv6, type Socket } from 'node:net';
import { closeSync, openSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { originalDestination } from '../../../examples/countdash/sidecar.ts';
import { checked, libc } from '../../../shared/kernel/libc.ts';

/** An agent's process (agent.ts): executes commands, one line of JSON each, in the namespace that it was started in. */
export type Order =
  /** Answers each connection with `<name> <the peer's address> <original destination>`. */
  | {
      readonly do: 'serve';
      readonly protocol: 'tcp' | 'udp';
      readonly host: string;
      readonly port: number;
      readonly name: string;
    }
  | { readonly do: 'ask'; readonly protocol: 'tcp' | 'udp'; readonly host: string; readonly port: number }
  | { readonly do: 'enter'; readonly netns: string | undefined }
  | { readonly do: 'close' };

const PATIENCE_MS = 1500;
/** linux/sched.h */
const CLONE_NEWNET = 0x40000000;
const FIRST = openSync('/proc/self/ns/net', 'r');

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const { id, order } = JSON.parse(line) as { id: number; order: Order };
    const say = (answer: string): boolean => process.stdout.write(`${JSON.stringify({ id, answer })}\n`);
    perform(order).then(say, (error: unknown) => {
      const { code, message } = error as NodeJS.ErrnoException;
      say(`error ${code ?? message}`);
    });
  })
  .on('close', () => process.exit());

async function perform(order: Order): Promise<string> {
  switch (order.do) {
    case 'serve':
      return serve(order);
    case 'ask':
      return ask(order);
    case 'enter':
      enter(order.netns === undefined ? FIRST : `/run/netns/${order.netns}`);
      return 'entered';
    case 'close':
      await Promise.all(serving.splice(0).map((one) => new Promise<void>((done) => one.close(() => done()))));
      return 'closed';
  }
}

/** Sockets are opened by the thread that runs this, and stay in the namespace that it is in then. */
function enter(namespace: string | number): void {
  const fd = typeof namespace === 'number' ? namespace : openSync(namespace, 'r');
  checked('setns', libc().setns(fd, CLONE_NEWNET));
  if (typeof namespace !== 'number') closeSync(fd);
}

const serving: { close(done: () => void): unknown }[] = [];

function serve({ protocol, host, port, name }: Order & { do: 'serve' }): Promise<string> {
  return new Promise((done, fail) => {
    if (protocol === 'tcp') {
      const server = createServer((socket) => {
        socket.on('error', () => undefined);
        socket.end(`${name} ${plain(socket.remoteAddress)} ${originally(socket)}`);
      });
      serving.push(server);
      server.once('error', fail).listen(port, host, () => done('serving'));
      return;
    }
    const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
    serving.push(socket);
    socket.on('message', (_text, from) =>
      socket.send(`${name} ${plain(from.address)}`, from.port, from.address),
    );
    socket.once('error', fail).bind(port, host, () => done('serving'));
  });
}

function ask({ protocol, host, port }: Order & { do: 'ask' }): Promise<string> {
  return protocol === 'tcp' ? askTcp(host, port) : askUdp(host, port);
}

function askTcp(host: string, port: number): Promise<string> {
  return new Promise((done, fail) => {
    const socket = connect({ host, port });
    let text = '';
    socket.setTimeout(PATIENCE_MS, () => socket.destroy(Object.assign(new Error(), { code: 'ETIMEDOUT' })));
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
    socket.once('error', fail).once('close', () => done(text));
  });
}

function askUdp(host: string, port: number): Promise<string> {
  return new Promise((done, fail) => {
    const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
    const timer = setTimeout(() => {
      socket.close();
      fail(Object.assign(new Error(), { code: 'ETIMEDOUT' }));
    }, PATIENCE_MS);
    const settle = (finish: () => void): void => {
      clearTimeout(timer);
      socket.close();
      finish();
    };
    socket.once('error', (error) => settle(() => fail(error)));
    socket.once('message', (text) => settle(() => done(text.toString())));
    socket.connect(port, host, () => socket.send('?'));
  });
}

function originally(socket: Socket): string {
  const destination = originalDestination(socket);
  return destination === undefined ? '' : `${destination.address}:${destination.port}`;
}

function plain(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:/, '');
}
