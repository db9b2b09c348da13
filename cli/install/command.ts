import { existsSync, realpathSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import * as z from 'zod/mini';
import { readOptions, UsageError } from '../../shared/config/command-line.ts';
import { withLock } from '../../shared/kernel/locks.ts';
import { writeAll } from '../../shared/kernel/stdio.ts';
import { Installer, type FileReport, type Report } from './install.ts';
import { Progress } from '../terminal.ts';
import { isPackaged, targetOf, UNIT, type Places } from './target.ts';
import { pluginRunner } from './verify.ts';

const PLACES_HELP = `  --bin-dir DIR   directory of the plugins, as in Nomad's cni_path (default /opt/cni/bin)
  --root DIR      install into the file system mounted at DIR, e.g. an image; the plugins run there by chroot (default /)
  --json          one JSON document instead of text

Exit status: 0 done, or nothing to do; 1 failed, everything is as before; 2 wrong usage.
`;

const INSTALL_HELP = `usage: weft install [options]
       weft install --rollback [options]

Installs this executable as CNI plugins while allocations run. The plugins of the CNI reference and consul-cni that it replaces are kept in
a dated directory next to the bin directory; files of other vendors are not touched. Killed at any moment, it is completed, or undone, by
the next run of install, install --rollback or uninstall.

  --agent         install launchers for the node agent, and its systemd unit
  --rollback      put the files from before the last installation back
  --dry-run       print what would be done
${PLACES_HELP}`;

const UNINSTALL_HELP = `usage: weft uninstall [options]

Removes the plugins of Weft and puts the files from before its first installation back.

${PLACES_HELP}`;

const PLACES = {
  'bin-dir': { type: 'string', default: '/opt/cni/bin' },
  root: { type: 'string', default: '/' },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const;
const OPTIONS = {
  ...PLACES,
  agent: { type: 'boolean', default: false },
  rollback: { type: 'boolean', default: false },
  'dry-run': { type: 'boolean', default: false },
} as const;

/** What `--json` prints. */
export const ReportSchema = z.object({
  result: z.enum(['installed', 'unchanged', 'restored', 'nothing installed']),
  dryRun: z.boolean(),
  version: z.nullable(z.string()),
  release: z.nullable(z.string()),
  agent: z.nullable(z.boolean()),
  files: z.array(
    z.object({
      path: z.string(),
      action: z.enum(['add', 'replace', 'keep', 'remove', 'restore']),
      was: z.nullable(z.string()),
    }),
  ),
  savedIn: z.nullable(z.string()),
  warnings: z.array(z.string()),
});

/** `weft install`. @returns the exit code */
export function install(argv: readonly string[]): number {
  const { values } = readOptions(argv, OPTIONS);
  if (values.help) return print(INSTALL_HELP);
  const { rollback, agent, 'dry-run': dryRun } = values;
  if (rollback && (agent || dryRun)) throw new UsageError('--rollback takes neither --agent nor --dry-run');
  const places = placesOf(values);
  const report = exclusively(places, (installer) =>
    rollback ? installer.rollback() : installer.install(targetOf(places, agent), dryRun),
  );
  return show(report, places, values.json, dryRun);
}

/** `weft uninstall`. @returns the exit code */
export function uninstall(argv: readonly string[]): number {
  const { values } = readOptions(argv, PLACES);
  if (values.help) return print(UNINSTALL_HELP);
  const places = placesOf(values);
  return show(
    exclusively(places, (installer) => installer.uninstall()),
    places,
    values.json,
    false,
  );
}

function exclusively(places: Places, work: (installer: Installer) => Report): Report {
  process.umask(0o022);
  const progress = new Progress();
  const run = pluginRunner(places.root);
  try {
    return withLock('install', () =>
      work(
        new Installer(places, (path, timeoutMs) => {
          progress.step(`running ${path}`);
          return run(path, timeoutMs);
        }),
      ),
    );
  } finally {
    progress.done();
  }
}

function placesOf(values: { root: string; 'bin-dir': string }): Places {
  if (!values['bin-dir'].startsWith('/')) throw new UsageError('--bin-dir must be an absolute path');
  const root = resolve(values.root);
  if (!existsSync(root)) throw new UsageError(`--root: ${root} does not exist`);
  const binDir = join(root, values['bin-dir']);
  // Saved files go next to the directory itself, not next to a link to it.
  return { root, binDir: root === '/' && existsSync(binDir) ? realpathSync(binDir) : resolve(binDir) };
}

function show(report: Report, places: Places, json: boolean, dryRun: boolean): number {
  if (!json) return print(textOf(report, places, dryRun));
  const { result, files, installation, savedIn, warnings } = report;
  const document: z.infer<typeof ReportSchema> = {
    result,
    dryRun,
    version: installation?.version ?? null,
    release: installation?.release ?? null,
    agent: installation?.agent ?? null,
    files: files.map(({ path, action, was }) => ({ path, action, was: was ?? null })),
    savedIn: savedIn ?? null,
    warnings: [...warnings],
  };
  return print(`${JSON.stringify(document, null, 2)}\n`);
}

const DONE: Readonly<Record<FileReport['action'], readonly [done: string, planned: string]>> = {
  add: ['added', 'add'],
  replace: ['replaced', 'replace'],
  keep: ['unchanged', 'keep'],
  remove: ['removed', 'remove'],
  restore: ['restored', 'restore'],
};

function textOf(report: Report, places: Places, dryRun: boolean): string {
  const { result, files, savedIn, warnings } = report;
  const lines = [headline(report, places, dryRun)];
  const shown = result === 'unchanged' ? [] : files;
  const width = Math.max(0, ...shown.map(({ path }) => nameOf(path, places).length));
  for (const { path, action, was } of shown) {
    const what = DONE[action][dryRun ? 1 : 0];
    lines.push(`  ${nameOf(path, places).padEnd(width)}  ${what}${was === undefined ? '' : ` ${was}`}`);
  }
  if (savedIn !== undefined && files.some(({ action }) => action === 'replace' || action === 'remove'))
    lines.push(`${dryRun ? 'keep replaced files in' : 'replaced files'}: ${savedIn}`);
  lines.push(...warnings.map((warning) => `warning: ${warning}`));
  if (!dryRun && (result === 'installed' || result === 'restored')) lines.push(...nextSteps(result, report));
  return `${lines.join('\n')}\n`;
}

function headline({ result, installation }: Report, { binDir }: Places, dryRun: boolean): string {
  const name = `Weft ${installation?.version ?? ''}${installation?.agent === true ? ' with the node agent' : ''}`;
  if (dryRun && result === 'installed') return `would install in ${binDir}; nothing was changed:`;
  if (result === 'installed') return `installed ${name} in ${binDir}:`;
  if (result === 'unchanged') return `${name} is installed in ${binDir}; nothing was changed`;
  if (result === 'nothing installed') return `weft install has installed nothing in ${binDir}`;
  return installation === undefined ? `uninstalled from ${binDir}:` : `restored ${name} in ${binDir}:`;
}

function nextSteps(result: 'installed' | 'restored', { installation }: Report): string[] {
  const steps = ['next: systemctl reload nomad   (Nomad before 1.11.2: restart)'];
  if (installation?.agent === true && !existsSync('/run/systemd/system') && !isPackaged())
    steps.push(`      no systemd here: run "weft agent" under your supervisor (${UNIT} shows how)`);
  if (result === 'installed') steps.push('undo: weft install --rollback');
  return steps;
}

/** Plugins by name, other files by path. */
function nameOf(path: string, { binDir }: Places): string {
  return path.startsWith(`${binDir}/`) ? basename(path) : path;
}

function print(text: string): number {
  writeAll(1, text);
  return 0;
}
