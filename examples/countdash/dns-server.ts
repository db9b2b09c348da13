import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { createServer, isIPv6, type Server, type Socket } from 'node:net';
import { answer, failure, Rcode, type Zone } from './dns-answers.ts';
import { forward } from './dns-forward.ts';
import { framed, readFrames } from './dns-framing.ts';
import { listening } from './listening.ts';

export interface DnsConfig {
  readonly address: string;
  readonly port: number;
  /** Name to address, see {@link Zone}. */
  readonly zone: Readonly<Record<string, string>>;
  /** Where names outside of the mesh are asked for; none means SERVFAIL, as Consul without recursors. */
  readonly recursors: readonly string[];
}

/** A client that keeps a TCP connection open without asking. */
const IDLE_MS = 10_000;

/**
 * The example's stand-in for Consul DNS: `<service>.virtual.consul` to the service's virtual address, everything else to the
 * recursors, over udp and tcp. Resolves when both listen, to what ends it. `tell` hears each question answered from the zone.
 */
export async function serveDns(config: DnsConfig, tell: (line: string) => void): Promise<() => void> {
  const zone: Zone = new Map(Object.entries(config.zone));
  const resolve = async (query: Buffer, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> => {
    const own = answer(query, zone);
    if (own !== 'forward') return own;
    const theirs = await forward(query, transport, config.recursors);
    if (theirs === undefined) tell('no recursor answered a question: SERVFAIL');
    return theirs ?? failure(query, Rcode.ServerFailure);
  };
  const udp = await serveUdp(config, resolve);
  const tcp = serveTcp(resolve);
  await listening(tcp, { host: config.address, port: config.port });
  return () => {
    udp.close();
    tcp.close();
  };
}

type Resolve = (query: Buffer, transport: 'udp' | 'tcp') => Promise<Buffer | undefined>;

async function serveUdp({ address, port }: DnsConfig, resolve: Resolve): Promise<DatagramSocket> {
  const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
  socket.on('message', (query, from) => {
    void resolve(query, 'udp').then((reply) => {
      // An error here concerns one client that has gone, not the server.
      if (reply !== undefined) socket.send(reply, from.port, from.address, () => undefined);
    });
  });
  await new Promise<void>((done, fail) => {
    socket.once('error', fail);
    socket.bind(port, address, done);
  });
  return socket;
}

function serveTcp(resolve: Resolve): Server {
  return createServer((socket: Socket) => {
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.on('error', () => socket.destroy());
    readFrames(socket, (query) => {
      void resolve(query, 'tcp').then((reply) => {
        if (reply !== undefined && socket.writable) socket.write(framed(reply));
      });
    });
  });
}
