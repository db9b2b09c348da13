import { lstatSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { PLUGIN_NAMES } from '../../plugins/index.ts';
import { readAsset, readBinaryAsset, readRelease } from '../../shared/assets.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { SUITE_VERSION } from '../../shared/cni/versions.ts';
import { createHash } from 'node:crypto';
import { brotliDecompressSync } from 'node:zlib';
import { digestAt, sha256, type Digest } from './installed-files.ts';

/** What an installation consists of. Its source is the executable that runs. */
export interface Target {
  readonly version: string;
  readonly release: string;
  readonly agent: boolean;
  readonly executable: { readonly source: string; readonly digest: Digest; readonly sizeBytes: number };
  /** With the agent: what is installed under the plugins' names. */
  readonly launcher: Buffer | undefined;
  readonly files: readonly TargetFile[];
}

export interface TargetFile {
  readonly path: string;
  readonly content: 'executable' | 'launcher' | Buffer;
  readonly digest: Digest;
  readonly mode: number;
}

export interface Places {
  /** The file system to install into; `/` is this host's. */
  readonly root: string;
  readonly binDir: string;
}

/** Where the packages put the executable (packaging/): the command and the unit are theirs, too. */
const PACKAGE_EXECUTABLE = '/usr/lib/weft/weft';
export const UNIT = 'weft-agent.service';
const COMMAND = '/usr/local/bin/weft';

export function targetOf({ root, binDir }: Places, agent: boolean): Target {
  const source = '/proc/self/exe';
  // A package's file is linked.
  const sizeBytes = isPackaged() ? 0 : statSync(source).size;
  const executable = {
    source: isPackaged() ? PACKAGE_EXECUTABLE : source,
    digest: sha256(source),
    sizeBytes,
  };
  const launcher = agent ? launcherOf() : undefined;
  const plugin =
    launcher === undefined
      ? { content: 'executable' as const, digest: executable.digest }
      : { content: 'launcher' as const, digest: digestOf(launcher) };
  const files: TargetFile[] = PLUGIN_NAMES.map((name) => ({
    path: join(binDir, name),
    mode: 0o755,
    ...plugin,
  }));
  if (!isPackaged()) {
    files.push({
      path: join(root, COMMAND),
      content: 'executable',
      digest: executable.digest,
      mode: 0o755,
    });
    if (agent) files.push(unitFile(root));
  }
  return { version: SUITE_VERSION, release: readRelease(), agent, executable, launcher, files };
}

/** Whether a package manager owns the executable that runs. */
export function isPackaged(): boolean {
  return realpathSync('/proc/self/exe') === PACKAGE_EXECUTABLE;
}

/** Whether the file at the path has the content, mode and owner that it should have. */
export function isInPlace({ path, digest, mode }: TargetFile): boolean {
  if (digestAt(path) !== digest) return false;
  const found = lstatSync(path);
  return (found.mode & 0o7777) === mode && found.uid === process.geteuid?.();
}

/** As an installation records them. */
export function filesOf({ files }: Target): Record<string, Digest> {
  return Object.fromEntries(files.map(({ path, digest }) => [path, digest]));
}

export function unitPath(root: string): string {
  return join(root, '/etc/systemd/system', UNIT);
}

function unitFile(root: string): TargetFile {
  const content = Buffer.from(readAsset(`packaging/systemd/${UNIT}`));
  return {
    path: unitPath(root),
    content,
    digest: digestOf(content),
    mode: 0o644,
  };
}

function launcherOf(): Buffer {
  const compressed = readBinaryAsset('launcher.br');
  if (compressed !== undefined) return brotliDecompressSync(compressed);
  throw new CniError(
    CniCode.UnsupportedField,
    'this executable was built without launchers (no C compiler)',
    {
      details: 'install without --agent, or build it where "cc" exists',
    },
  );
}

function digestOf(content: Buffer): Digest {
  return createHash('sha256').update(content).digest('hex');
}
