import * as z from 'zod/mini';
import { loadRoles } from '../agent/repair/calls.ts';
import { createMarks, Repairer, type RepairReport } from '../agent/repair/repairer.ts';
import { readOptions, requireRoot } from '../shared/config/command-line.ts';
import { writeAll } from '../shared/kernel/stdio.ts';
import { Progress } from './terminal.ts';

const HELP = `usage: weft repair [--dry-run] [--json]

Compares this host with what its running containers need, and restores what another program has removed: rules, chains and
jumps of iptables and nf_tables, sources of firewalld, ip_forward and route_localnet. Other programs' rules stay as they are.
What a container needs comes from the result that its runtime caches in /var/lib/cni/results. The node agent does the same
whenever rules change.

  --dry-run   only report what is missing
  --json      print {"attachments", "missing": [...], "left": [...], "problems": [...], "milliseconds"}

Exit status: 0 nothing is missing (any more); 1 something is missing still, or an error; 2 wrong usage
`;

const OPTIONS = {
  'dry-run': { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

/** Of `weft repair --json`. */
export const reportSchema = z.object({
  attachments: z.int(),
  missing: z.array(z.string()),
  left: z.array(z.string()),
  problems: z.array(z.string()),
  milliseconds: z.number(),
});

/** Calls that began before the directory for their marks existed have ended by then, see call-marks.ts. */
const CALLS_END_MS = 2_000;

/** `weft repair`. @returns the exit code */
export async function repairCommand(argv: readonly string[]): Promise<number> {
  const { values } = readOptions(argv, OPTIONS);
  if (values.help) {
    writeAll(1, HELP);
    return 0;
  }
  requireRoot('only root can read the rules of this host');
  const roles = await loadRoles();
  const write = !values['dry-run'];
  const progress = new Progress(0);
  if (write && createMarks()) {
    progress.step('waiting for plugin calls that have begun');
    await new Promise((resolve) => setTimeout(resolve, CALLS_END_MS));
  }
  progress.done();
  const report = new Repairer(roles).repair({ write });
  writeAll(1, values.json ? `${JSON.stringify(report)}\n` : text(report, write));
  return report.left.length === 0 ? 0 : 1;
}

function text({ attachments, missing, left, problems }: RepairReport, write: boolean): string {
  const restored = missing.length - left.length;
  const lines = [
    ...(write ? left : missing),
    ...problems,
    `${counted(attachments, 'running attachment')}: ${counted(missing.length, 'piece')} missing${write && missing.length > 0 ? `, ${restored} restored` : ''}`,
  ];
  return lines.map((line) => `${line}\n`).join('');
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
