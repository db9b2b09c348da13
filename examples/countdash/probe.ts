import { Resolver } from 'node:dns/promises';
import { connect } from 'node:net';

/** A question put from inside a namespace, for the assertions of `--once`. */
export type ProbeConfig =
  | { readonly ask: 'resolve'; readonly name: string; readonly servers?: readonly string[] }
  | { readonly ask: 'http'; readonly host: string; readonly port: number; readonly path: string };

export interface ProbeAnswer {
  readonly answer?: string;
  readonly error?: string;
}

const PATIENCE_MS = 4000;

/** Never rejects: what went wrong is an answer, too. */
export async function probe(config: ProbeConfig): Promise<ProbeAnswer> {
  try {
    return { answer: config.ask === 'resolve' ? await resolve(config) : await http(config) };
  } catch (thrown) {
    const { code, message } = thrown as NodeJS.ErrnoException;
    return { error: code ?? message };
  }
}

/** With the name servers of /etc/resolv.conf unless others are given. */
async function resolve({ name, servers }: ProbeConfig & { ask: 'resolve' }): Promise<string> {
  const resolver = new Resolver({ timeout: 1500, tries: 2 });
  if (servers !== undefined) resolver.setServers(servers);
  return (await resolver.resolve4(name)).join(' ');
}

/** The status line and body of a plain GET, raw: the other end may speak anything. */
function http({ host, port, path }: ProbeConfig & { ask: 'http' }): Promise<string> {
  return new Promise((done, fail) => {
    const socket = connect({ host, port });
    const chunks: Buffer[] = [];
    socket.setTimeout(PATIENCE_MS, () =>
      socket.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })),
    );
    socket.once('error', fail);
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.once('close', () => done(Buffer.concat(chunks).toString('latin1')));
    socket.write(`GET ${path} HTTP/1.0\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
  });
}
