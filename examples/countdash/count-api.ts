import { createServer } from 'node:http';
import { hostname } from 'node:os';
import { listening } from './listening.ts';

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
