import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import { framed, readFrames } from './dns-framing.ts';

/** One recursor's time to answer; resolvers in libc ask again after 5 s. */
const PATIENCE_MS = 1500;
const PORT = 53;

type Exchange = (query: Buffer, recursor: string) => Promise<Buffer>;

/**
 * The answer of the first recursor that gives one, with the id of `query`; undefined when none does.
 * @param transport what the client used: an answer over tcp may be longer than any datagram
 * @param recursors addresses, optionally with `#port`
 */
export async function forward(
  query: Buffer,
  transport: 'udp' | 'tcp',
  recursors: readonly string[],
): Promise<Buffer | undefined> {
  const exchange: Exchange = transport === 'udp' ? exchangeUdp : exchangeTcp;
  for (const recursor of recursors) {
    try {
      return withId(await exchange(withId(query, randomInt(0x10000)), recursor), query.readUInt16BE(0));
    } catch {
      // The next recursor is asked; with none left the client hears SERVFAIL.
    }
  }
  return undefined;
}

function exchangeUdp(query: Buffer, recursor: string): Promise<Buffer> {
  const { address, port } = endpoint(recursor);
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    const timer = setTimeout(() => finish(() => reject(new Error('no answer in time'))), PATIENCE_MS);
    const finish = (settle: () => void): void => {
      clearTimeout(timer);
      socket.close();
      settle();
    };
    socket.once('error', (error) => finish(() => reject(error)));
    socket.on('message', (message) => {
      // Someone else's datagram or a late answer to an earlier question: not ours.
      if (message.length >= 12 && message.readUInt16BE(0) === query.readUInt16BE(0))
        finish(() => resolve(message));
    });
    // Connected, so that only this recursor can answer and a refused port is an error at once.
    socket.connect(port, address, () => socket.send(query));
  });
}

function exchangeTcp(query: Buffer, recursor: string): Promise<Buffer> {
  const { address, port } = endpoint(recursor);
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address, port });
    socket.setTimeout(PATIENCE_MS, () => socket.destroy(new Error('no answer in time')));
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed without an answer')));
    readFrames(socket, (message) => {
      resolve(message);
      socket.destroy();
    });
    socket.write(framed(query));
  });
}

function endpoint(recursor: string): { address: string; port: number } {
  const [address = '', port = PORT] = recursor.split('#');
  return { address, port: Number(port) };
}

function withId(message: Buffer, id: number): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(id, 0);
  return copy;
}
