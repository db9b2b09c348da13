import { createServer, type Server } from 'node:net';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { listening } from './listening.ts';
import { isAlive, readState } from './state.ts';

/** Abstract: no file, gone with its process whatever ends it, and one for each network namespace, as the names of the example are. */
const NAME = '\0weft-countdash';

/**
 * Makes this process the only one that starts, runs or takes down the example here, until it ends: of two that start at once, the
 * second would take the first one's namespaces for leftovers.
 * @throws CniError when there is another one
 */
export async function claimExample(): Promise<Server> {
  const server = createServer((socket) => socket.destroy());
  try {
    await listening(server, { path: NAME });
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw thrown;
    const state = readState();
    throw new CniError(
      CniCode.IoFailure,
      state !== undefined && isAlive(state)
        ? `the example runs already, as process ${state.pid}; stop it with Ctrl-C there, or: kill ${state.pid}`
        : 'another call of the example is starting or ending at this moment',
    );
  }
  return server.unref();
}
