import { readOptions } from '../../shared/config/command-line.ts';
import { writeAll } from '../../shared/kernel/stdio.ts';
import { painter, Progress, terminalWidth } from '../terminal.ts';
import { readStatus, statusSchema, type Status } from './report.ts';
import { statusText } from './status-text.ts';

const HELP = `usage: weft status [options]

The node on one screen: agent, policy, drift, networks with used and free addresses, and each attachment with its job, group, address,
ports, back end, age and health. Health is the answer of CHECK, which Nomad asks when its agent restarts; drift is what
"weft repair" would restore. Changes nothing.

  --watch        again every two seconds, until interrupted
  --no-check     do not run CHECK
  --json         one JSON document; with --watch, one a line

health  ok         works as it was set up
        warning    works, but a configuration has changed since, or part of it cannot be checked
        failed     something is missing: the lines below the table say what; "weft show ALLOC" shows where
        unchecked  the runtime cached no configuration
        gone       the container has no network namespace any more

Exit status: 0 no attachment failed and nothing is missing; 1 otherwise, or the status cannot be read; 2 wrong usage
`;

const OPTIONS = {
  watch: { type: 'boolean' },
  'no-check': { type: 'boolean' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

/** `weft status`. @returns the exit code */
export async function status(argv: readonly string[]): Promise<number> {
  const { values } = readOptions(argv, OPTIONS);
  if (values.help === true) {
    writeAll(1, HELP);
    return 0;
  }
  const paint = painter();
  for (;;) {
    const read = await readStatus({ check: values['no-check'] !== true, progress: new Progress() });
    const text =
      values.json === true
        ? `${JSON.stringify(statusSchema.parse(read), null, values.watch === true ? 0 : 2)}\n`
        : statusText(read, paint, terminalWidth());
    // On a terminal, the screen is replaced in one write: it does not flicker.
    const clear = values.watch === true && terminalWidth() !== undefined && values.json !== true;
    writeAll(1, `${clear ? '\x1b[H\x1b[2J' : ''}${text}`);
    if (values.watch !== true) return exitCodeOf(read);
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
  }
}

const WATCH_MS = 2000;

function exitCodeOf({ attachments, problems, drift }: Status): number {
  return problems.length > 0 ||
    (drift ?? []).length > 0 ||
    attachments.some(({ health }) => health === 'failed')
    ? 1
    : 0;
}
