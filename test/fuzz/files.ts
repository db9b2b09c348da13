import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Random } from '../support/random.ts';
import { corrupt, mutate } from './mutate.ts';

/** Something in place of a file that plugins read or write. */
export interface HostileFile {
  readonly path: string;
  readonly kind: 'text' | 'fifo' | 'link' | 'folder' | 'huge';
  /** Contents, or the target of a link. */
  readonly text: string;
}

const LEASES = '/var/run/cni/fuzz';
const CACHED = '/var/lib/cni/results/fuzz-c1-eth0';

/** What a plugin expects at each path. */
const PLACES: readonly { readonly path: string; readonly valid: unknown }[] = [
  { path: `${LEASES}/172.26.64.2`, valid: 'c1\r\neth0' },
  { path: `${LEASES}/172.26.64.3`, valid: 'c2\r\neth0' },
  { path: `${LEASES}/fd00::2`, valid: 'c1' },
  { path: `${LEASES}/last_reserved_ip.0`, valid: '172.26.64.9' },
  { path: `${LEASES}/lock`, valid: '' },
  { path: '/var/run/cni/.weft-fuzz.tmp', valid: 'c1\r\neth0' },
  { path: LEASES, valid: '' },
  { path: '/run/weft/ipam', valid: '' },
  { path: '/run/weft/locks', valid: '' },
  {
    path: '/etc/netns/pod/resolv.conf',
    valid: '# weft: network=fuzz container=c1 interface=eth0\nnameserver 1.1.1.1\n',
  },
  { path: '/etc/weft/weft.json', valid: { backend: 'nftables', tproxy: { ipv6: 'on' } } },
  { path: '/etc/weft/weft.json', valid: { backend: 'iptables' } },
  {
    path: CACHED,
    valid: {
      kind: 'cniCacheV1',
      containerId: 'c1',
      config: Buffer.from(
        JSON.stringify({ name: 'fuzz', plugins: [{ type: 'bridge', bridge: 'nomad' }] }),
      ).toString('base64'),
      ifName: 'eth0',
      networkName: 'fuzz',
      netns: '/run/netns/pod',
      result: {
        cniVersion: '1.0.0',
        interfaces: [{ name: 'eth0', sandbox: '/run/netns/pod' }],
        ips: [{ address: '172.26.64.2/20', interface: 0 }],
      },
    },
  },
];

export function hostileFiles(random: Random): HostileFile[] {
  return Array.from({ length: 1 + random.below(2) }, () => hostileFile(random));
}

function hostileFile(random: Random): HostileFile {
  const { path, valid } = random.pick(PLACES);
  const kind = random.below(10);
  if (kind === 0) return { path, kind: 'fifo', text: '' };
  if (kind === 1) return { path, kind: 'folder', text: '' };
  if (kind === 2) return { path, kind: 'huge', text: '' };
  if (kind === 3)
    return {
      path,
      kind: 'link',
      text: random.pick(['/dev/zero', '/etc/passwd', '/run/none', '.', '/run/kept']),
    };
  return { path, kind: 'text', text: contents(random, valid) };
}

function contents(random: Random, valid: unknown): string {
  if (random.chance(0.1))
    return random.pick([
      '',
      '\0\0\0\0',
      ' \n',
      '{}',
      '[]',
      'null',
      '\ufeff{}',
      '\udcff'.repeat(100),
      '\n'.repeat(100_000),
    ]);
  const changed = typeof valid === 'string' || random.chance(0.3) ? valid : mutate(random, valid);
  const text = typeof changed === 'string' ? changed : (JSON.stringify(changed) ?? '');
  if (text === '' || random.chance(0.3)) return text;
  return random.chance(0.3) ? text.slice(0, random.below(text.length)) : corrupt(random, text);
}

/** Puts the files where they belong, over whatever is there. */
export function place(files: readonly HostileFile[]): void {
  for (const { path, kind, text } of files) {
    try {
      rmSync(path, { recursive: true, force: true });
      mkdirSync(dirname(path), { recursive: true });
    } catch {
      // An earlier file of the same case is where a folder is needed.
      continue;
    }
    if (kind === 'text') writeFileSync(path, text);
    else if (kind === 'link') symlinkSync(text, path);
    else if (kind === 'folder') mkdirSync(path);
    else if (kind === 'fifo') execFileSync('mkfifo', [path]);
    else {
      writeFileSync(path, '');
      truncateSync(path, 1 << 30);
    }
  }
}

export function remove(files: readonly HostileFile[]): void {
  // A later file may be behind a link that is an earlier one.
  for (const { path } of files.toReversed()) rmSync(path, { recursive: true, force: true });
}
