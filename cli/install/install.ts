import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { CniError, toCniError } from '../../shared/cni/errors.ts';
import { newDirectory, restore, save } from './backup.ts';
import { copy, digestAt, linkOrCopy, putInPlace, sync } from './installed-files.ts';
import type { Identity } from './identify.ts';
import { identifyReplaced, labelFiles, requireInstallable } from './requirements.ts';
import { AgentService } from './service.ts';
import {
  PrivateDirectory,
  type Backup,
  type History,
  type Installation,
  type State,
} from './installation.ts';
import { filesOf, isInPlace, isPackaged, unitPath, type Places, type Target } from './target.ts';
import { pluginRunner, verifyPlugins, type RunPlugin } from './verify.ts';

/** What a run did, or with `dryRun` would do. */
export interface Report {
  readonly result: 'installed' | 'unchanged' | 'restored' | 'nothing installed';
  readonly files: readonly FileReport[];
  /** What is installed afterwards. */
  readonly installation: Installation | undefined;
  /** Where the files are that were replaced. */
  readonly savedIn: string | undefined;
  readonly warnings: readonly string[];
}

export interface FileReport {
  readonly path: string;
  readonly action: 'add' | 'replace' | 'keep' | 'remove' | 'restore';
  /** What was at the path: `CNI reference plugin v1.1.1`. */
  readonly was?: string;
}

/**
 * The operations on one bin directory. Each begins by completing or undoing what a killed run left, and changes files only after it has
 * recorded how to undo that: after a kill at any step, the next run, whichever it is, leads to a complete state.
 */
export class Installer {
  readonly #places: Places;
  readonly #run: RunPlugin;
  readonly #own: PrivateDirectory;
  readonly #service: AgentService;
  readonly #warnings: string[] = [];
  #state: State;

  constructor(places: Places, run: RunPlugin = pluginRunner(places.root)) {
    this.#places = places;
    this.#run = run;
    this.#own = new PrivateDirectory(places.binDir);
    this.#service = new AgentService(places);
    this.#state = this.#own.read();
  }

  install(target: Target, dryRun: boolean): Report {
    if (this.#state.pending !== undefined && !dryRun) {
      this.#warnings.push('a run before this one was interrupted; what it had changed was undone first');
    }
    if (!dryRun) this.#recover();
    const { current } = this.#state;
    const replaced = target.files.filter((file) => !isInPlace(file)).map(({ path }) => path);
    const removed = Object.keys(current?.files ?? {}).filter((path) => !(path in filesOf(target)));
    const isComplete =
      !target.agent || digestAt(this.#executable(target.release)) === target.executable.digest;
    if (replaced.length === 0 && removed.length === 0 && isComplete && current?.release === target.release) {
      if (!dryRun && unitPath(this.#places.root) in current.files && !this.#service.isRunning)
        this.#service.start();
      return this.#report('unchanged', planOf(target, [], [], new Map()));
    }
    requireInstallable(this.#places, target);
    const plugins = replaced.filter((path) => dirname(path) === this.#places.binDir);
    const files = planOf(target, replaced, removed, identifyReplaced(plugins, this.#run));
    const directory = newDirectory(this.#places.binDir, new Date());
    if (!dryRun) this.#change(target, directory, removed);
    return this.#report('installed', files, directory);
  }

  /** Puts the files from before the last installation back. A killed installation is the last one. */
  rollback(): Report {
    const wasPending = this.#state.pending !== undefined;
    const before = this.#recover();
    if (wasPending) return this.#report('restored', before);
    const { previous, original } = this.#state;
    return previous === undefined
      ? this.#undo(original, {})
      : this.#undo(previous, { current: previous.installation, original });
  }

  /** Puts the files from before Weft back. */
  uninstall(): Report {
    const before = this.#recover();
    if (before.length > 0 && this.#state.current === undefined) return this.#report('restored', before);
    return this.#undo(this.#state.original, {});
  }

  #undo(backup: Backup | undefined, after: History): Report {
    const ours = this.#state.current?.files;
    if (backup === undefined || ours === undefined) return this.#report('nothing installed', []);
    this.#write({ ...this.#state, pending: { step: 'restore', backup, ours, after } });
    return this.#report('restored', this.#recover());
  }

  /** Completes or undoes what is pending. @returns the files that were put back or removed */
  #recover(): FileReport[] {
    const { pending, current, original, previous } = this.#state;
    if (pending === undefined) this.#clean();
    if (pending?.step === 'save') this.#finish({ current, original, previous });
    if (pending?.step !== 'restore') return [];
    const { backup, ours, after } = pending;
    const unit = unitPath(this.#places.root);
    this.#service.beforeChange(backup.saved[unit] !== false);
    for (const path of restore(backup, ours, (file) => this.#temporary(file)))
      this.#warnings.push(`${path} was changed after the installation and stays as it is`);
    labelFiles(Object.keys(backup.saved).filter((path) => existsSync(path)));
    this.#service.afterChange(unit in backup.saved);
    this.#finish(after);
    return Object.entries(backup.saved).map(([path, isSaved]) => ({
      path,
      action: isSaved ? 'restore' : 'remove',
    }));
  }

  #change(target: Target, directory: string, removed: readonly string[]): void {
    const { current, original, previous } = this.#state;
    const ours = filesOf(target);
    const paths = [...Object.keys(ours), ...removed];
    try {
      this.#write({ ...this.#state, pending: { step: 'save', directory } });
      const executables = this.#own.executables();
      this.#stage(target);
      const saved = save(directory, paths);
      const backup: Backup = { directory, installation: current, saved, executables };
      const before = { current, original: withPaths(original, paths), previous };
      this.#write({ ...this.#state, pending: { step: 'restore', backup, ours, after: before } });
      this.#replace(target, removed);
      const { version, release, agent } = target;
      const installation = { version, release, agent, files: ours };
      this.#finish(
        before.original === undefined
          ? { current: installation, original: backup }
          : { current: installation, original: before.original, previous: backup },
      );
    } catch (thrown) {
      this.#undoFailed(thrown);
    }
  }

  #undoFailed(thrown: unknown): never {
    try {
      this.#recover();
    } catch (second) {
      const { code, message } = toCniError(thrown);
      throw new CniError(
        code,
        `${message}; then the files could not be put back: ${toCniError(second).message}`,
        {
          details: 'run "weft install --rollback" when the cause is remedied',
          cause: second,
        },
      );
    }
    throw thrown;
  }

  /** The new files on the bin directory's file system, where the executable must run before anything is replaced. */
  #stage({ executable, launcher, version }: Target): void {
    const { staging } = this.#own;
    rmSync(staging, { recursive: true, force: true });
    mkdirSync(join(staging, 'try'), { recursive: true });
    if (isPackaged()) linkOrCopy(executable.source, this.#staged('executable'));
    else copy(executable.source, this.#staged('executable'));
    if (launcher !== undefined) {
      writeFileSync(this.#staged('launcher'), launcher, { mode: 0o755 });
      sync(this.#staged('launcher'));
    }
    const plugin = join(staging, 'try/bridge');
    linkOrCopy(this.#staged('executable'), plugin);
    verifyPlugins([plugin], version, this.#run);
  }

  #replace(target: Target, removed: readonly string[]): void {
    const unit = unitPath(this.#places.root);
    if (target.agent) this.#put(this.#staged('executable'), this.#executable(target.release));
    for (const { path, content, mode } of target.files) {
      if (typeof content === 'string') {
        this.#put(this.#staged(content), path);
      } else {
        mkdirSync(dirname(path), { recursive: true });
        const temporary = this.#temporary(path);
        writeFileSync(temporary, content, { mode });
        sync(temporary);
        putInPlace(temporary, path);
      }
    }
    this.#service.beforeChange(!removed.includes(unit));
    for (const path of removed) rmSync(path, { force: true });
    labelFiles([this.#places.binDir, ...target.files.map(({ path }) => path)]);
    const plugins = target.files
      .map(({ path }) => path)
      .filter((path) => dirname(path) === this.#places.binDir);
    verifyPlugins(plugins, target.version, this.#run);
    this.#service.afterChange(removed.includes(unit) || unit in filesOf(target));
  }

  /** The command is a copy: an operator who overwrites it must not change the plugins. */
  #put(source: string, path: string): void {
    mkdirSync(dirname(path), { recursive: true });
    const temporary = this.#temporary(path);
    rmSync(temporary, { force: true });
    if (path.startsWith(`${this.#places.binDir}/`)) linkOrCopy(source, temporary);
    else copy(source, temporary);
    putInPlace(temporary, path);
  }

  /** Where the file for a path is prepared. Nomad must not find it among the plugins. */
  #temporary(path: string): string {
    if (!path.startsWith(`${this.#places.binDir}/`))
      return join(dirname(path), `.${basename(path)}.weft-new`);
    mkdirSync(this.#own.staging, { recursive: true });
    return join(this.#own.staging, `for-${basename(path)}`);
  }

  #staged(content: 'executable' | 'launcher'): string {
    return join(this.#own.staging, content);
  }

  #executable(release: string): string {
    return join(this.#own.path, release);
  }

  /** Records the state that was reached, then deletes what it does not need. */
  #finish(after: History): void {
    const { pending, original, previous, obsolete } = this.#state;
    const used = [after.original?.directory, after.previous?.directory];
    const known = [
      ...obsolete,
      original?.directory,
      previous?.directory,
      pending?.step === 'restore' ? pending.backup.directory : pending?.directory,
    ];
    const unused = known.filter((path) => path !== undefined && !used.includes(path));
    this.#write({ format: 1, ...after, obsolete: [...new Set(unused)] as string[] });
    this.#clean();
  }

  #clean(): void {
    const { obsolete } = this.#state;
    for (const directory of obsolete) rmSync(directory, { recursive: true, force: true });
    if (obsolete.length > 0 && this.#state.current !== undefined)
      this.#write({ ...this.#state, obsolete: [] });
    this.#own.prune(this.#state);
  }

  #write(state: State): void {
    this.#own.write(state);
    this.#state = state;
  }

  #report(result: Report['result'], files: readonly FileReport[], savedIn?: string): Report {
    const warnings = [...this.#warnings, ...this.#service.warnings];
    return { result, files, installation: this.#state.current, savedIn, warnings };
  }
}

/** The files from before Weft, also for paths that an earlier installation did not have. */
function withPaths(original: Backup | undefined, paths: readonly string[]): Backup | undefined {
  if (original === undefined) return undefined;
  const more = paths.filter((path) => !(path in original.saved));
  return { ...original, saved: { ...original.saved, ...save(original.directory, more) } };
}

function planOf(
  target: Target,
  replaced: readonly string[],
  removed: readonly string[],
  identities: ReadonlyMap<string, Identity>,
): FileReport[] {
  const changes = target.files.map(({ path }): FileReport => {
    const was = identities.get(path)?.text;
    if (!replaced.includes(path)) return { path, action: 'keep' };
    if (digestAt(path) === undefined) return { path, action: 'add' };
    return { path, action: 'replace', ...(was !== undefined && { was }) };
  });
  return [...changes, ...removed.map((path): FileReport => ({ path, action: 'remove' }))];
}
