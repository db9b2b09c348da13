import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { parseListenAddress } from '../../shared/config/node-config.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import type { Log } from '../log.ts';
import type { FigureReader } from './figures.ts';
import { createMetrics, type ServedCall } from './registry.ts';

/** Serves metrics over HTTP. Requests are answered in the event loop: between plugin calls. */
export interface MetricsServer {
  observe(call: ServedCall): void;
  /** Whether a request is being answered: the agent should not wait for calls meanwhile. */
  isBusy(): boolean;
  close(): void;
}

/** @param address as `metrics` of /etc/weft/weft.json names it. While it is in use, the server tries again every two seconds */
export function serveMetrics(address: string, figures: FigureReader, log: Log): MetricsServer {
  const metrics = createMetrics();
  let open = 0;
  const server = createServer((request, response) => {
    void answer(request, response, async () => {
      response.setHeader('Content-Type', metrics.contentType);
      return metrics.text(figures.read());
    });
  });
  // A connection that stays open would keep the agent from waiting for calls.
  server.maxConnections = MOST_CONNECTIONS;
  server.setTimeout(LIMIT_MS, (socket) => socket.destroy());
  server.on('connection', (socket) => {
    open += 1;
    socket.once('close', () => (open -= 1));
  });
  let retry: NodeJS.Timeout | undefined;
  const listen = (): void => void server.listen({ ...parseListenAddress(address), exclusive: true });
  server.on('listening', () => log('info', `metrics: http://${address}/metrics`));
  server.on('error', (error) => {
    if (retry === undefined) log('error', `metrics: cannot serve on ${address}: ${error.message}`);
    // An agent that this one replaces may still have the address.
    retry = setTimeout(listen, RETRY_MS);
  });
  listen();
  return {
    observe: (call) => metrics.observe(call),
    isBusy: () => open > 0,
    close: () => {
      clearTimeout(retry);
      server.close();
      server.closeAllConnections();
    },
  };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  text: () => Promise<string>,
): Promise<void> {
  response.shouldKeepAlive = false;
  const path = request.url?.split('?')[0];
  try {
    if (path !== '/metrics') response.writeHead(404).end('metrics are at /metrics\n');
    else if (request.method !== 'GET' && request.method !== 'HEAD')
      response.writeHead(405, { Allow: 'GET' }).end();
    else response.end(await text());
  } catch (thrown) {
    response.writeHead(500, { 'Content-Type': 'text/plain' }).end(`${toCniError(thrown).message}\n`);
  }
}

const MOST_CONNECTIONS = 4;
const LIMIT_MS = 5_000;
const RETRY_MS = 2_000;
