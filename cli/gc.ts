import * as z from 'zod/mini';
import { loadPlugins } from '../agent/call.ts';
import { piecesOf, type Leak } from '../agent/collect/judge.ts';
import { loadTracesRoles, look } from '../agent/collect/look.ts';
import { removeLeak } from '../agent/collect/remove.ts';
import { toCniError } from '../shared/cni/errors.ts';
import { readOptions } from '../shared/config/command-line.ts';
import { writeAll } from '../shared/kernel/stdio.ts';
import { formatAge, Progress } from './terminal.ts';

const HELP = `usage: weft gc [--dry-run] [--json]

Removes what containers that are gone have left on this host, by DEL of the plugins that made it: cached results, leases,
rules, interfaces, files in /etc/netns. A container is gone if it has no network namespace, none is named after it or has one
of its addresses, and ten minutes have passed since its last ADD and since the host has started. What is in doubt stays.

  --dry-run   only report what would be removed
  --json      print {"leaks": [...], "doubts": [...], "warnings": [...]}

Exit status: 0 nothing is left of containers that are gone; 1 something is left, or an error; 2 wrong usage
`;

const OPTIONS = {
  'dry-run': { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

/** Of `weft gc --json`. */
export const reportSchema = z.strictObject({
  leaks: z.array(
    z.strictObject({
      network: z.string(),
      container: z.string(),
      /** Null where nothing tells a time. */
      ageSeconds: z.nullable(z.int()),
      reason: z.string(),
      pieces: z.array(z.string()),
      removed: z.boolean(),
      error: z.nullable(z.string()),
    }),
  ),
  /** Containers without a namespace of their own that may be running. */
  doubts: z.array(z.strictObject({ network: z.string(), container: z.string(), reason: z.string() })),
  /** Lines that the plugins printed. */
  warnings: z.array(z.string()),
});

type Report = z.output<typeof reportSchema>;

/** `weft gc`. @returns the exit code */
export async function gc(argv: readonly string[]): Promise<number> {
  const { values } = readOptions(argv, OPTIONS);
  if (values.help) {
    writeAll(1, HELP);
    return 0;
  }
  const report = await collect(values['dry-run']);
  writeAll(1, values.json ? `${JSON.stringify(report)}\n` : text(report, values['dry-run']));
  return report.leaks.every(({ removed }) => removed) ? 0 : 1;
}

async function collect(isDryRun: boolean): Promise<Report> {
  const plugins = await loadPlugins();
  const roles = await loadTracesRoles();
  const { leaks, doubts } = look(roles);
  const warnings: string[] = [];
  const errors = new Map<Leak, string>();
  const progress = new Progress();
  for (const [at, leak] of (isDryRun ? [] : leaks).entries()) {
    progress.step(`removing ${at + 1} of ${leaks.length}: ${leak.network}/${leak.containerId}`);
    try {
      if (!removeLeak(leak, plugins, (line) => void warnings.push(line)))
        errors.set(leak, 'its list has "disableGC", or it was added again');
    } catch (thrown) {
      errors.set(leak, toCniError(thrown).message);
    }
  }
  progress.done();
  const left = isDryRun || leaks.length === 0 ? [] : look(roles).leaks;
  return {
    leaks: leaks.map((leak) => {
      const { network, containerId, ageSeconds = null, reason } = leak;
      const rest = left.find((one) => one.network === network && one.containerId === containerId);
      const error =
        errors.get(leak) ?? (rest === undefined ? null : `still there: ${piecesOf(rest).join(', ')}`);
      const removed = !isDryRun && error === null;
      return { network, container: containerId, ageSeconds, reason, pieces: piecesOf(leak), removed, error };
    }),
    doubts: doubts.map(({ network, containerId, reason }) => ({ network, container: containerId, reason })),
    warnings,
  };
}

function text({ leaks, doubts, warnings }: Report, isDryRun: boolean): string {
  const removed = leaks.filter((leak) => leak.removed).length;
  const lines = [
    ...leaks.flatMap(({ network, container, ageSeconds, reason, pieces, error }) => [
      `${network}/${container}${ageSeconds === null ? '' : `, ${formatAge(ageSeconds)}`}: ${reason}`,
      ...pieces.map((piece) => `  ${piece}`),
      ...(error === null ? [] : [`  not removed: ${error}`]),
    ]),
    ...doubts.map(({ network, container, reason }) => `kept ${network}/${container}: ${reason}`),
    ...warnings,
    `containers that are gone and have left something: ${leaks.length}${isDryRun || leaks.length === 0 ? '' : `, removed: ${removed}`}`,
  ];
  return lines.map((line) => `${line}\n`).join('');
}
