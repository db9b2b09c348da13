import { Resolver } from 'node:dns/promises';
import { type ServerResponse, createServer, get } from 'node:http';
import { type ListenOptions, type Server, connect, isIP } from 'node:net';
import { hostname } from 'node:os';

/** The example's counting service: every GET of `/` counts one more. */
export async function serveCountApi({ port }: { readonly port: number }): Promise<void> {
  let count = 0;
  const server = createServer((request, response) => {
    const known = request.url === '/' || request.url === '/health';
    if (request.url === '/') count += 1;
    response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' });
    response.end(
      JSON.stringify(known ? { count, hostname: hostname() } : { error: 'only / and /health exist' }),
    );
  });
  await listening(server, { port });
}

export interface DashboardConfig {
  readonly port: number;
  /** COUNTING_SERVICE_URL */
  readonly url: string;
  /** The page's HTML. */
  readonly page: string;
  /** Default: those of /etc/resolv.conf. */
  readonly nameServer?: string | undefined;
}

const FETCH_TIMEOUT_MS = 3000;

/** The example's dashboard: a page, and `/count`, which asks the counting service each time. */
export async function serveDashboard({ port, url, page, nameServer }: DashboardConfig): Promise<void> {
  const server = createServer((request, response) => {
    if (request.url === '/') send(response, 200, 'text/html; charset=utf-8', page.replace('{{url}}', url));
    else if (request.url === '/count') void sendCount(response, url, nameServer);
    else send(response, 404, 'text/plain', 'only / and /count exist\n');
  });
  await listening(server, { port });
}

async function sendCount(
  response: ServerResponse,
  url: string,
  nameServer: string | undefined,
): Promise<void> {
  try {
    send(response, 200, 'application/json', await fetchText(url, nameServer));
  } catch (thrown) {
    const { message } = thrown as Error;
    send(response, 502, 'application/json', JSON.stringify({ error: `${url} does not answer: ${message}` }));
  }
}

/** A connection for each call, so that each call is resolved, redirected and authorized again. */
export async function fetchText(url: string, nameServer?: string): Promise<string> {
  const { hostname, host, port, pathname } = new URL(url);
  const address = await addressOf(hostname, nameServer);
  return new Promise((resolve, reject) => {
    const request = get({
      host: address,
      port: port === '' ? 80 : port,
      path: pathname,
      headers: { host },
      agent: false,
      timeout: FETCH_TIMEOUT_MS,
    });
    request.once('timeout', () =>
      request.destroy(new Error(`no answer within ${FETCH_TIMEOUT_MS / 1000} s`)),
    );
    request.once('error', reject);
    request.once('response', (response) => {
      const chunks: Buffer[] = [];
      response.once('error', reject);
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.once('end', () => {
        if (response.statusCode === 200) resolve(Buffer.concat(chunks).toString());
        else reject(new Error(`it says ${response.statusCode}`));
      });
    });
  });
}

/**
 * Queries the name servers of /etc/resolv.conf directly: libc would follow nsswitch.conf, where systemd-resolved or nscd
 * answer from the host, outside this namespace.
 */
async function addressOf(name: string, nameServer: string | undefined): Promise<string> {
  if (isIP(name) !== 0) return name;
  const resolver = new Resolver({ timeout: 1000, tries: 2 });
  if (nameServer !== undefined) resolver.setServers([nameServer]);
  const [address] = await resolver.resolve4(name);
  if (address === undefined) throw new Error(`${name} has no address`);
  return address;
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
  response.end(body);
}

/** A probe run inside a namespace, for the assertions of `--once`. */
export type ProbeConfig =
  | { readonly ask: 'resolve'; readonly name: string; readonly servers?: readonly string[] }
  | { readonly ask: 'http'; readonly host: string; readonly port: number; readonly path: string };

export interface ProbeAnswer {
  readonly answer?: string;
  readonly error?: string;
}

const PROBE_TIMEOUT_MS = 4000;

/** Never rejects: errors are part of the answer. */
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

/** Raw response to a plain GET; the peer may not speak HTTP. */
function http({ host, port, path }: ProbeConfig & { ask: 'http' }): Promise<string> {
  return new Promise((done, fail) => {
    const socket = connect({ host, port });
    const chunks: Buffer[] = [];
    socket.setTimeout(PROBE_TIMEOUT_MS, () =>
      socket.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })),
    );
    socket.once('error', fail);
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.once('close', () => done(Buffer.concat(chunks).toString('latin1')));
    socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
  });
}

/** Resolves when `server` listens; rejects when it cannot. */
export function listening(server: Server, options: ListenOptions): Promise<void> {
  return new Promise((done, fail) => {
    server.once('error', fail);
    server.listen(options, () => {
      server.off('error', fail);
      done();
    });
  });
}
