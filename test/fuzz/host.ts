import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { makeClientHost, sh } from '../e2e/support/client-host.ts';
import { foreignObjects } from '../soak/foreign.ts';
import { added, hostLines, type Lines } from '../soak/state.ts';

/** What must be the same after any number of calls: everything that the plugins did not make. */
export interface Untouched {
  readonly lines: Lines;
  readonly files: Lines;
}

/** A host with rules, interfaces and leases of others, and a namespace `pod`; everything that is not a host's own is read-only. */
export async function makeHost(): Promise<Untouched> {
  makeClientHost();
  foreignObjects('nft');
  sh(
    'sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; ip netns add pod; ip -n pod link set lo up',
  );
  for (const folder of ['/run/cwd', '/etc/weft']) mkdirSync(folder, { recursive: true });
  writeFileSync('/run/kept', 'kept');
  readOnly();
  await hostLines();
  return look();
}

export async function look(): Promise<Untouched> {
  return { lines: await hostLines(), files: changedFiles() };
}

/** @returns what was removed or changed, and what was added in places that are no plugin's; empty if all is well */
export function differences(before: Untouched, after: Untouched): string[] {
  return [
    ...added(after.lines, before.lines).map((line) => `removed: ${line}`),
    ...added(before.lines, after.lines)
      .filter((line) => FOREIGN_INTERFACE.test(line))
      .map((line) => `added: ${line}`),
    ...added(after.files, before.files).map((line) => `removed or changed: ${line}`),
    ...added(before.files, after.files)
      .filter((line) => !OWN_FILES.test(line))
      .map((line) => `added: ${line}`),
  ];
}

/** Addresses and properties of interfaces that were there before. */
const FOREIGN_INTERFACE = /^(link|address) (eth0|lo|foreign0) /;

/** docs/reference/files.md; and folders of the tests. A mutated `dataDir` may be anywhere. */
const OWN_FILES =
  /\/fuzz\/(lock|last_reserved_ip\.\d+|[\da-f.:]+) |^\/(run\/(weft|cni|netns|xtables\.lock|lock)|etc\/(netns|weft)|var\/lib\/cni)(\/| |$)|^\/run\/\.layers\/\w+\/upper\/(netns|weft|lib\/cni|lib) /;

/** Every file of this host's own /run, /etc, /var and /opt that differs from the machine's, with type, size and time of change. */
function changedFiles(): Lines {
  const text = execFileSync(
    'find',
    [
      ...[
        '/run',
        '-not',
        '-path',
        '*/work/*',
        '-not',
        '-name',
        '.agent.log',
        '-not',
        '-name',
        'agent.sock',
        '-not',
        '-type',
        'd',
      ],
      '-printf',
      '%p %y %s %T@ %l\\n',
    ],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  );
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.replace(/^\/run\/\.layers\/(\w+)\/upper\//, '/$1/'))
    .sort();
}

/** A plugin that writes outside of its own paths must not change the machine. */
function readOnly(): void {
  for (const path of readdirSync('/').map((name) => `/${name}`)) {
    if (/^\/(run|etc|var|opt|proc|sys|dev)$/.test(path)) continue;
    sh(`mountpoint -q ${path} && mount -o remount,bind,ro ${path} || true`);
  }
  sh('mount -o remount,bind,ro / || true');
}
