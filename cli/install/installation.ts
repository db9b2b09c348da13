import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod/mini';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { parseJson } from '../../shared/config/json.ts';
import { readRegularFile } from '../../shared/kernel/files.ts';
import { putInPlace, sync } from './installed-files.ts';

/**
 * What `weft install` has done to a bin directory: `.weft/install.json` in it. It is written before each step that changes files, so that
 * the next run of install, rollback or uninstall finds what a killed one left, and completes or undoes it.
 */

/** Absolute path -> digest of the file that Weft installed there. */
const Files = z.record(z.string(), z.string());

const InstallationSchema = z.object({
  version: z.string(),
  release: z.string(),
  agent: z.boolean(),
  files: Files,
});
export type Installation = z.infer<typeof InstallationSchema>;

const BackupSchema = z.object({
  directory: z.string(),
  /** The installation whose files these are; absent: the files from before Weft. */
  installation: z.optional(InstallationSchema),
  /** Absolute path -> whether the directory has a file for it; false: nothing was at the path. */
  saved: z.record(z.string(), z.boolean()),
  /** Executables of launchers that were in `.weft`. */
  executables: z.array(z.string()),
});
export type Backup = z.infer<typeof BackupSchema>;

const HistorySchema = z.object({
  current: z.optional(InstallationSchema),
  /** The files from before Weft. */
  original: z.optional(BackupSchema),
  /** The files of the installation before the current one. */
  previous: z.optional(BackupSchema),
});
export type History = z.infer<typeof HistorySchema>;

const StateSchema = z.extend(HistorySchema, {
  format: z.literal(1),
  pending: z.optional(
    z.union([
      z.object({ step: z.literal('save'), directory: z.string() }),
      /** Files of `backup` are being replaced by `ours`, or put back in their place: in both cases putting them back gives `after`. */
      z.object({
        step: z.literal('restore'),
        backup: BackupSchema,
        ours: Files,
        after: HistorySchema,
      }),
    ]),
  ),
  /** Directories to delete. */
  obsolete: z.array(z.string()),
});
export type State = z.infer<typeof StateSchema>;

/** Files of ours in a bin directory that Nomad must not take for plugins: it executes files, not what is below `.weft`. */
export class PrivateDirectory {
  readonly path: string;
  readonly staging: string;

  constructor(binDir: string) {
    this.path = join(binDir, '.weft');
    this.staging = join(this.path, 'new');
  }

  get file(): string {
    return join(this.path, 'install.json');
  }

  read(): State {
    const text = readRegularFile(this.file);
    if (text === undefined) return { format: 1, obsolete: [] };
    const parsed = StateSchema.safeParse(parseJson(text, this.file));
    if (parsed.success) return parsed.data;
    throw new CniError(CniCode.DecodingFailure, `${this.file} was not written by this version of weft`, {
      details:
        'run the newer weft that installed the plugins, or move the file away to forget that installation',
    });
  }

  write(state: State): void {
    mkdirSync(this.path, { recursive: true, mode: 0o755 });
    const temporary = `${this.file}.new`;
    writeFileSync(temporary, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o644 });
    sync(temporary);
    putInPlace(temporary, this.file);
  }

  /** Removes what no installation needs, and the directory when nothing is left in it. */
  prune(state: State): void {
    if (!existsSync(this.path)) return;
    const { current, original, previous } = state;
    const kept = new Set([
      ...(current === undefined ? [] : ['install.json']),
      ...(current?.agent === true ? [current.release] : []),
      ...(original?.executables ?? []),
      ...(previous?.executables ?? []),
    ]);
    for (const name of readdirSync(this.path)) {
      if (isOurs(name) && !kept.has(name)) rmSync(join(this.path, name), { recursive: true });
    }
    if (readdirSync(this.path).length === 0) rmdirSync(this.path);
  }

  executables(): string[] {
    return existsSync(this.path) ? readdirSync(this.path).filter((name) => RELEASE.test(name)) : [];
  }
}

const RELEASE = /^[0-9a-f]{32}$/;

function isOurs(name: string): boolean {
  return name.startsWith('install.json') || name === 'new' || RELEASE.test(name);
}
