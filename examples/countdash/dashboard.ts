import { Resolver } from 'node:dns/promises';
import { createServer, get, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { listening } from './listening.ts';

export interface DashboardConfig {
  readonly port: number;
  /** COUNTING_SERVICE_URL */
  readonly url: string;
  /** The page's HTML. */
  readonly page: string;
}

const PATIENCE_MS = 3000;

/** The example's dashboard: a page, and `/count`, which asks the counting service each time. */
export async function serveDashboard({ port, url, page }: DashboardConfig): Promise<void> {
  const server = createServer((request, response) => {
    if (request.url === '/') send(response, 200, 'text/html; charset=utf-8', page.replace('{{url}}', url));
    else if (request.url === '/count') void sendCount(response, url);
    else send(response, 404, 'text/plain', 'only / and /count exist\n');
  });
  await listening(server, { port });
}

async function sendCount(response: ServerResponse, url: string): Promise<void> {
  try {
    send(response, 200, 'application/json', await fetchText(url));
  } catch (thrown) {
    const { message } = thrown as Error;
    send(response, 502, 'application/json', JSON.stringify({ error: `${url} does not answer: ${message}` }));
  }
}

/** A connection for each call, so that each one is resolved, redirected and judged anew. */
async function fetchText(url: string): Promise<string> {
  const { hostname, host, port, pathname } = new URL(url);
  const address = await addressOf(hostname);
  return new Promise((resolve, reject) => {
    const request = get({
      host: address,
      port: port === '' ? 80 : port,
      path: pathname,
      headers: { host },
      agent: false,
      timeout: PATIENCE_MS,
    });
    request.once('timeout', () => request.destroy(new Error(`no answer within ${PATIENCE_MS / 1000} s`)));
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
 * Asked of the name servers in /etc/resolv.conf by ourselves: libc would look at nsswitch.conf first, and with
 * systemd-resolved or nscd there the question would be answered by the host, outside of this namespace.
 */
async function addressOf(name: string): Promise<string> {
  if (isIP(name) !== 0) return name;
  const [address] = await new Resolver({ timeout: 1000, tries: 2 }).resolve4(name);
  if (address === undefined) throw new Error(`${name} has no address`);
  return address;
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
  response.end(body);
}
