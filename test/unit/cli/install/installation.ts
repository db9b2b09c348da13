import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { basename, join } from 'node:path';
import { Installer } from '../../../../cli/install/install.ts';
import type { Places, Target } from '../../../../cli/install/target.ts';

/**
 * A bin directory with plugins of the reference and of others, small targets for `Installer`, and a process that "dies" at one of its
 * changes: the call is done by half or not at all, and no later one has an effect.
 */
export const NAMES = ['loopback', 'bridge', 'host-local', 'firewall', 'portmap', 'consul-cni'];

export class Node {
  /** In memory: fsync costs nothing. */
  readonly base: string = fs.mkdtempSync('/dev/shm/weft-install-');
  readonly places: Places = { root: '/', binDir: join(this.base, 'cni/bin') };

  readonly installer = (): Installer => new Installer(this.places, answer);

  /** As after the operations on a node without Weft; those are run once, then copied. */
  reset(...operations: readonly (() => unknown)[]): void {
    const key = operations.map(String).join();
    const copies = `${this.base}-copies`;
    const index = this.#prepared.indexOf(key);
    if (index >= 0) {
      fs.rmSync(this.base, { recursive: true, force: true });
      fs.cpSync(`${copies}/${index}`, this.base, { recursive: true, verbatimSymlinks: true });
      return;
    }
    this.#make();
    for (const operation of operations) operation();
    const copy = `${copies}/${this.#prepared.push(key) - 1}`;
    fs.cpSync(this.base, copy, { recursive: true, verbatimSymlinks: true });
  }

  readonly #prepared: string[] = [];

  #make(): void {
    fs.rmSync(this.base, { recursive: true, force: true });
    fs.mkdirSync(this.places.binDir, { recursive: true });
    fs.mkdirSync(join(this.base, 'bin'));
    for (const name of NAMES) this.#write(name, plugin('1.1.1'), 0o755);
    fs.rmSync(join(this.places.binDir, 'portmap'));
    fs.symlinkSync('../../reference/portmap', join(this.places.binDir, 'portmap'));
    fs.mkdirSync(join(this.base, 'reference'));
    fs.writeFileSync(join(this.base, 'reference/portmap'), plugin('1.1.1'), { mode: 0o755 });
    this.#write('calico', 'another vendor', 0o755);
    this.#write('README', 'text', 0o644);
  }

  remove(): void {
    for (const path of [this.base, `${this.base}-copies`]) fs.rmSync(path, { recursive: true, force: true });
  }

  #write(name: string, text: string, mode: number): void {
    fs.writeFileSync(join(this.places.binDir, name), text, { mode });
  }

  /** The suite in a version, with launchers where `agent`. */
  target(version: string, agent: boolean): Target {
    const source = join(this.base, `weft-${version}`);
    const text = plugin(version);
    fs.writeFileSync(source, text, { mode: 0o755 });
    const launcher = agent ? Buffer.from(`${text}# launcher\n`) : undefined;
    const unit = Buffer.from(`unit ${version}`);
    const content = agent ? ('launcher' as const) : ('executable' as const);
    const digest = sha256(launcher ?? text);
    const plugins = [...NAMES, 'consul-tproxy'].map((name) => ({
      path: join(this.places.binDir, name),
      content,
      digest,
      mode: 0o755,
    }));
    const command = {
      path: join(this.base, 'bin/weft'),
      content: 'executable' as const,
      digest: sha256(text),
      mode: 0o755,
    };
    const service = {
      path: join(this.base, 'units/weft-agent.service'),
      content: unit,
      digest: sha256(unit),
      mode: 0o644,
    };
    return {
      version,
      release: sha256(text).slice(0, 32),
      agent,
      executable: { source, digest: sha256(text), sizeBytes: text.length },
      launcher,
      files: [...plugins, command, ...(agent ? [service] : [])],
    };
  }

  /** Every file below the bin directory's parent, the command's and the unit's directory: path, type, mode, contents. */
  state(): Record<string, string> {
    const found = ['cni', 'bin', 'units'].flatMap((name) => this.#files(name));
    return Object.fromEntries(found.sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  #files(path: string): [string, string][] {
    const file = join(this.base, path);
    const stats = fs.lstatSync(file, { throwIfNoEntry: false });
    if (stats === undefined) return [];
    if (stats.isDirectory()) return fs.readdirSync(file).flatMap((name) => this.#files(join(path, name)));
    const text = stats.isSymbolicLink() ? fs.readlinkSync(file) : fs.readFileSync(file, 'utf8');
    // The time is in the names of directories.
    const neutral = (value: string): string => value.replaceAll(/\d{8}T\d{6}Z(-\d+)?/g, 'TIME');
    return [[neutral(path), `${(stats.mode & 0o777).toString(8)} ${neutral(text)}`]];
  }
}

/** What a process of Weft and of the reference answer. */
function plugin(version: string): string {
  return `#!/bin/sh\necho "CNI \${0##*/} plugin v${version}" >&2\n`;
}

/** As the shell answers, without its start. */
function answer(path: string): { exitCode: number; stdout: string; stderr: string } {
  const [, version] = / plugin (v\S+)" >&2\n/.exec(fs.readFileSync(path, 'utf8')) ?? [];
  return version === undefined
    ? { exitCode: 1, stdout: '', stderr: 'exec format error' }
    : { exitCode: 0, stdout: '', stderr: `CNI ${basename(path)} plugin ${version}\n` };
}

function sha256(content: string | Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}

/** Of node:fs, what changes something. */
const CHANGES = [
  'writeFileSync',
  'copyFileSync',
  'renameSync',
  'linkSync',
  'symlinkSync',
  'mkdirSync',
  'rmSync',
  'rmdirSync',
  'chmodSync',
] as const;

export class Killed extends Error {}

/**
 * @param at the change (from 0) at which the process ends
 * @returns whether it came that far
 */
export function runUntil(at: number, work: () => unknown): boolean {
  const own = Object.fromEntries(CHANGES.map((name) => [name, fs[name]]));
  let count = 0;
  for (const name of CHANGES) {
    const call = own[name] as (...args: unknown[]) => unknown;
    const disturbed = (...args: unknown[]): unknown => {
      if (count > at) throw new Killed();
      if (count++ < at) return call(...args);
      // Contents that have reached the disk by half.
      if (name === 'writeFileSync') call(args[0], String(args[1]).slice(0, 9), args[2]);
      if (name === 'copyFileSync') (own['writeFileSync'] as typeof call)(args[1], 'half');
      throw new Killed();
    };
    Object.assign(fs, { [name]: disturbed });
  }
  syncBuiltinESMExports();
  try {
    work();
    return count > at;
  } catch (thrown) {
    if (count <= at) throw thrown;
    return true;
  } finally {
    Object.assign(fs, own);
    syncBuiltinESMExports();
  }
}
