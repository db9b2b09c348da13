import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';

/** Both variants of iptables; Debian installs them side by side. */
export const VARIANTS = ['nft', 'legacy'] as const;
export type Variant = (typeof VARIANTS)[number];

/** Makes a variant this test's `iptables`, `ip6tables` and so on, for this process and all it starts. */
export function useVariant(variant: Variant): void {
  const folder = `/run/test-iptables-${variant}`;
  mkdirSync(folder, { recursive: true });
  for (const family of ['iptables', 'ip6tables']) {
    for (const program of ['', '-save', '-restore']) {
      const link = `${folder}/${family}${program}`;
      if (!existsSync(link)) symlinkSync(`/usr/sbin/${family}-${variant}${program}`, link);
    }
  }
  process.env['PATH'] = `${folder}:/usr/sbin:/usr/bin:/sbin:/bin`;
}

/** Runs a program and returns what it printed; throws with its stderr when it fails. */
export function run(file: string, ...args: string[]): string {
  return execFileSync(file, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Runs nft(8) with a script in a file: version 0.9.8 opens /dev/stdin for `-f -`, which fails on Node's pipes, because they are sockets. */
export function nftScript(lines: readonly string[]): void {
  writeFileSync('/run/script.nft', `${lines.join('\n')}\n`);
  run('nft', '-f', '/run/script.nft');
}

/** One shell-like line: words split at blanks. */
export function sh(line: string): string {
  const [file, ...args] = line.split(' ');
  return run(file ?? '', ...args);
}

/** A table as iptables-save prints it, without comments and counters: what a golden holds. */
export function saved(table: string, family: 'ipv4' | 'ipv6' = 'ipv4', namespace?: string): string {
  const program = family === 'ipv4' ? 'iptables-save' : 'ip6tables-save';
  const inside = namespace === undefined ? [] : ['ip', 'netns', 'exec', namespace];
  const [file, ...args] = [...inside, program, '-t', table];
  return run(file ?? '', ...args)
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.replace(/ \[\d+:\d+\]$/, ''))
    .join('\n');
}

/** User-defined chains and all rules. */
export function rules(table: string, family: 'ipv4' | 'ipv6' = 'ipv4'): string[] {
  return saved(table, family)
    .split('\n')
    .filter((line) => line.startsWith('-A ') || /^:\S+ -$/.test(line));
}

/** The words of a line of iptables-save, for a command line. */
export function wordsOf(line: string): string[] {
  return [...line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(([, quoted, bare]) =>
    quoted === undefined ? (bare ?? '') : quoted.replaceAll(/\\(.)/g, '$1'),
  );
}

/** Empties a table: rules first, then user-defined chains. */
export function clear(...tables: string[]): void {
  for (const family of ['iptables', 'ip6tables']) {
    for (const table of tables) {
      run(family, '-t', table, '-F');
      run(family, '-t', table, '-X');
    }
  }
}

/**
 * Puts a script of the test's own in front of one of the variant's programs. `$REAL` in it is the program; it should end with
 * `exec $REAL "$@"`. Its own name tells the variant, as the real one's does.
 */
export function wrap(variant: Variant, program: string, script: string): void {
  const file = `/run/test-iptables-${variant}/xtables-${variant}-${program}.sh`;
  const [family, action] = program.split('-');
  const real = `/usr/sbin/${family}-${variant}-${action}`;
  writeFileSync(file, `#!/bin/sh\nREAL=${real}\n${script}\n`, { mode: 0o755 });
  const link = `/run/test-iptables-${variant}/${program}`;
  rmSync(link);
  symlinkSync(file, link);
}

/** Takes programs off this test's host: everything below /usr/sbin is its own from now on. */
export function removePrograms(...names: string[]): void {
  run('mount', '-t', 'tmpfs', 'tmpfs', '/mnt');
  run('mkdir', '/mnt/upper', '/mnt/work');
  run(
    'mount',
    '-t',
    'overlay',
    'overlay',
    '-o',
    'lowerdir=/usr/sbin,upperdir=/mnt/upper,workdir=/mnt/work',
    '/usr/sbin',
  );
  for (const name of names) rmSync(`/usr/sbin/${name}`);
  // A process searches once for each PATH.
  process.env['PATH'] = `${process.env['PATH'] ?? ''}:/nowhere`;
}
