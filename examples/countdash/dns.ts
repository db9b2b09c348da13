import dnsPacket from 'dns-packet';
import type { Answer, Packet } from 'dns-packet';
import { randomInt } from 'node:crypto';
import { type Socket as DatagramSocket, createSocket } from 'node:dgram';
import { type Server, type Socket, connect, createServer, isIPv6 } from 'node:net';
import type { Readable } from 'node:stream';
import { listening } from './programs.ts';

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
 * The example's simulated Consul DNS: answers `<service>.virtual.consul` with the service's virtual address and forwards everything else
 * to the recursors, over UDP and TCP. Resolves when both sockets listen, to a function that closes them.
 */
export async function serveDns(config: DnsConfig, log: (line: string) => void): Promise<() => void> {
  const zone: Zone = new Map(Object.entries(config.zone));
  const resolve = async (query: Buffer, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> => {
    const own = answer(query, zone);
    if (own !== 'forward') return own;
    const theirs = await forward(query, transport, config.recursors);
    if (theirs === undefined) log('no recursor answered: SERVFAIL');
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

/** Names that the example's DNS answers itself, lower case without a closing dot, and their addresses. */
export type Zone = ReadonlyMap<string, string>;

/** Header codes of RFC 1035 section 4.1.1. */
export const Rcode = {
  NoError: 0,
  FormatError: 1,
  ServerFailure: 2,
  NameError: 3,
  NotImplemented: 4,
} as const;
const OPCODE_MASK = 0x7800;
const DOMAIN = 'consul';
/** Consul answers with 0, so that a changed address is seen at once. */
const TTL = 0;

/**
 * The answer for a query within the mesh's domain; 'forward' for every other name, which is for the recursors.
 * A message that is no query at all gives undefined: it gets no answer.
 */
export function answer(query: Buffer, zone: Zone): Buffer | 'forward' | undefined {
  if (query.length < 12 || isResponse(query)) return undefined;
  if ((query.readUInt16BE(2) & OPCODE_MASK) !== 0) return failure(query, Rcode.NotImplemented);
  const packet = decode(query);
  const question = packet?.questions?.length === 1 ? packet.questions[0] : undefined;
  if (packet === undefined || question === undefined) return failure(query, Rcode.FormatError);
  const name = question.name.toLowerCase();
  if (name !== DOMAIN && !name.endsWith(`.${DOMAIN}`)) return 'forward';
  const address = zone.get(name);
  const known = address !== undefined || name === DOMAIN;
  const answers =
    address !== undefined && ['A', 'ANY'].includes(question.type) ? [record(question.name, address)] : [];
  return dnsPacket.encode({
    ...header(packet, dnsPacket.AUTHORITATIVE_ANSWER | (known ? Rcode.NoError : Rcode.NameError)),
    answers,
    // Without answers, the zone's SOA marks a negative answer (RFC 2308).
    authorities: answers.length > 0 ? [] : [startOfAuthority()],
  });
}

/** An error response. It always carries the query's id, also when the rest cannot be decoded. */
export function failure(query: Buffer, rcode: number): Buffer {
  const packet = decode(query) ?? { id: query.readUInt16BE(0) };
  return dnsPacket.encode(header(packet, rcode));
}

/** `<service>.virtual.consul`, the name under which a service of the mesh is called. */
export function virtualName(service: string): string {
  return `${service}.virtual.${DOMAIN}`;
}

function header(query: Packet, flags: number): Packet {
  const wanted = query.flag_rd === true ? dnsPacket.RECURSION_DESIRED : 0;
  return {
    type: 'response',
    ...(query.id === undefined ? {} : { id: query.id }),
    flags: flags | wanted | dnsPacket.RECURSION_AVAILABLE,
    questions: query.questions ?? [],
  };
}

function record(name: string, address: string): Answer {
  return { type: 'A', name, ttl: TTL, class: 'IN', data: address };
}

function startOfAuthority(): Answer {
  const data = {
    mname: `ns.${DOMAIN}`,
    rname: `hostmaster.${DOMAIN}`,
    serial: 1,
    refresh: 3600,
    retry: 600,
    expire: 86400,
    minimum: TTL,
  };
  return { type: 'SOA', name: DOMAIN, ttl: TTL, class: 'IN', data };
}

function decode(query: Buffer): Packet | undefined {
  try {
    return dnsPacket.decode(query);
  } catch {
    return undefined;
  }
}

function isResponse(message: Buffer): boolean {
  return (message.readUInt8(2) & 0x80) !== 0;
}

/** One recursor's time to answer; resolvers in libc ask again after 5 s. */
const RECURSOR_TIMEOUT_MS = 1500;
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
      // Try the next recursor; after the last one the client gets SERVFAIL.
    }
  }
  return undefined;
}

function exchangeUdp(query: Buffer, recursor: string): Promise<Buffer> {
  const { address, port } = endpoint(recursor);
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    const timer = setTimeout(() => finish(() => reject(new Error('no answer in time'))), RECURSOR_TIMEOUT_MS);
    const finish = (settle: () => void): void => {
      clearTimeout(timer);
      socket.close();
      settle();
    };
    socket.once('error', (error) => finish(() => reject(error)));
    socket.on('message', (message) => {
      // Ignore other datagrams and late answers to earlier queries.
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
    socket.setTimeout(RECURSOR_TIMEOUT_MS, () => socket.destroy(new Error('no answer in time')));
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

/**
 * DNS over TCP (RFC 1035 section 4.2.2): each message behind its length.
 *
 *     0       2                2 + length
 *     +-------+----------------+
 *     | len BE| message        |
 *     +-------+----------------+
 */
export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

/** Calls `onMessage` for each whole message, however the bytes are cut on their way. */
export function readFrames(stream: Readable, onMessage: (message: Buffer) => void): void {
  let pending = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
      const end = 2 + pending.readUInt16BE(0);
      onMessage(pending.subarray(2, end));
      pending = pending.subarray(end);
    }
  });
}
