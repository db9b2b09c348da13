import dnsPacket from 'dns-packet';
import { createSocket, type Socket } from 'node:dgram';
import { randomInt } from 'node:crypto';

export interface DnsServer {
  readonly address: string;
  readonly port: number;
}

/** `answer`: any response, also one that says that there is no such name. */
export type DnsOutcome =
  | { readonly is: 'answer'; readonly rcode: string; readonly answers: number }
  | { readonly is: 'silence'; readonly reason: string };

/**
 * A UDP socket of the network namespace that this thread is in: it stays there wherever it is used. Synchronous, so that the namespace can be
 * left afterwards.
 */
export function openDnsSocket(address: string): Socket {
  const isIpv6 = address.includes(':');
  const socket = createSocket({
    type: isIpv6 ? 'udp6' : 'udp4',
    // The default one answers in a later turn of the event loop, when the thread is in its own namespace again.
    lookup: (name, _, done) => done(null, name, isIpv6 ? 6 : 4),
  });
  // Without a listener, an error would end the process; what is not answered is `silence`.
  socket.on('error', () => undefined);
  socket.bind({ address: isIpv6 ? '::' : '0.0.0.0', port: 0, exclusive: true });
  return socket;
}

/** One question, sent again once; closes the socket. */
export async function query(
  socket: Socket,
  server: DnsServer,
  question: { readonly type: 'A' | 'SOA'; readonly name: string },
): Promise<DnsOutcome> {
  const id = randomInt(65_536);
  const packet = dnsPacket.encode({
    type: 'query',
    id,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [question],
  });
  return new Promise((resolve) => {
    const timers: NodeJS.Timeout[] = [];
    const end = (outcome: DnsOutcome): void => {
      for (const timer of timers) clearTimeout(timer);
      socket.close();
      resolve(outcome);
    };
    const send = (): void =>
      socket.send(packet, server.port, server.address, (error) => {
        if (error !== null) end({ is: 'silence', reason: reasonOf(error) });
      });
    socket.on('message', (bytes: Buffer) => {
      const response = decoded(bytes);
      if (response?.id !== id || response.type !== 'response') return;
      end({ is: 'answer', rcode: response.rcode ?? '', answers: response.answers?.length ?? 0 });
    });
    timers.push(setTimeout(send, LIMIT_MS / 3));
    timers.push(
      setTimeout(() => end({ is: 'silence', reason: `no answer within ${LIMIT_MS} ms` }), LIMIT_MS),
    );
    send();
  });
}

/** A recursor may be slow. */
const LIMIT_MS = 2_000;

function reasonOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message;
}

function decoded(bytes: Buffer): ReturnType<typeof dnsPacket.decode> | undefined {
  try {
    return dnsPacket.decode(bytes);
  } catch {
    return undefined;
  }
}
