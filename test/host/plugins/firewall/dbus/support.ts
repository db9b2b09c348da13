import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { once } from 'node:events';

export const SOCKET = '/run/dbus/system_bus_socket';
/** Why no real bus can be had on this machine; undefined when it can. */
export const missingBus: string | undefined = existsSync('/usr/bin/dbus-daemon')
  ? undefined
  : '/usr/bin/dbus-daemon is not installed';

/** The distribution's bus, on this test's host. */
export async function realBus(): Promise<ChildProcess> {
  mkdirSync('/run/dbus', { recursive: true });
  const bus = spawn('dbus-daemon', ['--system', '--nofork', '--nopidfile', '--print-address'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await once(bus.stdout, 'data');
  return bus;
}

/**
 * Something that listens at `path` and does with each connection what `behaviour` says, in a process of its own: what is
 * tested blocks this one. `behaviour` is a function's body; it has `peer`, `net`.
 */
export async function listener(path: string, behaviour: string): Promise<ChildProcess> {
  const script = `
    const net = require('node:net');
    net.createServer((peer) => { peer.on('error', () => undefined); ${behaviour} })
      .listen({ path: ${JSON.stringify(path)}, backlog: 1 }, () => console.log('ready'));`;
  const child = spawn(process.execPath, ['--no-warnings', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}
