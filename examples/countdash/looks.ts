import { get } from 'node:http';

const PATIENCE_MS = 6000;

/** One GET from the host, whatever answers. */
export function fetch(host: string, port: number, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const request = get({ host, port, path, agent: false, timeout: PATIENCE_MS }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.once('error', reject);
      response.once('end', () =>
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }),
      );
    });
    request.once('timeout', () =>
      request.destroy(new Error(`no answer from ${host}:${port} within ${PATIENCE_MS / 1000} s`)),
    );
    request.once('error', reject);
  });
}

export function expectEqual(seen: string | undefined, wanted: string): string {
  if (seen === wanted) return wanted;
  throw new Error(`wanted ${wanted}, got ${seen ?? 'nothing'}`);
}

export function expectMatch(seen: string | undefined, wanted: RegExp): string {
  const [match] = wanted.exec(seen ?? '') ?? [];
  if (match !== undefined) return match;
  throw new Error(`wanted ${String(wanted)}, got ${JSON.stringify(seen?.slice(0, 200) ?? 'nothing')}`);
}
