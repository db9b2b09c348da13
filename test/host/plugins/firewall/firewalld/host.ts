import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { run } from '../../../../support/variants.ts';

/** The distribution's packages, unpacked by `npm test` where they are not installed (scripts/firewalld.mjs). */
const UNPACKED = resolve(import.meta.dirname, '../../../../../dist/tools/firewalld');

const installed = [
  '/usr/bin/dbus-daemon',
  '/usr/bin/busctl',
  '/usr/sbin/firewalld',
  '/usr/bin/firewall-cmd',
].every((file) => existsSync(file));

/** Why the real firewalld cannot be tested on this machine; undefined when it can. */
export const whyWithout: string | undefined =
  installed || existsSync(UNPACKED)
    ? undefined
    : 'firewalld, dbus-daemon and busctl are not installed, and npm test could not unpack them (its first lines say why)';

/** Puts the unpacked packages where this test's host looks for programs; nothing where they are installed. */
export function equipHost(): void {
  if (installed) return;
  run('mount', '-t', 'overlay', 'overlay', '-o', `ro,lowerdir=${UNPACKED}/usr:/usr`, '/usr');
  run('cp', '-a', `${UNPACKED}/etc/.`, '/etc/');
  // What the bus' package would do when it is installed.
  if (!readFileSync('/etc/passwd', 'utf8').includes('messagebus:'))
    appendFileSync('/etc/passwd', 'messagebus:x:64999:64999::/nonexistent:/usr/sbin/nologin\n');
}

/** A system bus of this test's host, in its own /run. */
export async function startBus(): Promise<ChildProcess> {
  mkdirSync('/run/dbus', { recursive: true });
  const bus = spawn('dbus-daemon', ['--system', '--nofork', '--nopidfile', '--print-address'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await once(bus.stdout, 'data');
  return bus;
}

/** The distribution's firewalld in this test's namespaces, ready to be asked. It needs a bus. */
export async function startFirewalld(): Promise<ChildProcess> {
  const file = '/etc/firewalld/firewalld.conf';
  const settings = readFileSync(file, 'utf8');
  writeFileSync(file, settings.replace(/^FirewallBackend=.*$/m, 'FirewallBackend=nftables'));
  const firewalld = spawn('firewalld', ['--nofork', '--nopid'], { stdio: 'ignore' });
  await until('firewalld runs', () => spawnSync('firewall-cmd', ['--state']).status === 0);
  return firewalld;
}

export async function stop(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  await once(child, 'exit');
}

export async function until(what: string, isTrue: () => boolean): Promise<void> {
  const end = Date.now() + 60_000;
  while (!isTrue()) {
    if (Date.now() > end) throw new Error(`did not come to pass within a minute: ${what}`);
    await pause(50);
  }
}

export function firewallCmd(...args: string[]): string {
  return run('firewall-cmd', ...args).trim();
}

/** Sources of a zone in their order, as firewalld lists them. */
export function sources(zone = 'trusted'): string[] {
  return firewallCmd(`--zone=${zone}`, '--list-sources')
    .split(' ')
    .filter((source) => source !== '');
}
