import type { ListenOptions, Server } from 'node:net';

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
