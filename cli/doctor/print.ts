import { GROUPS } from './catalog.ts';
import type { AllocationReport, Report } from './finding.ts';

/** The report as text, at most `columns` wide where words allow it. */
export function reportText(report: Report, columns: number): string {
  const { findings, notChecked, fixed, allocation } = report;
  const summary = GROUPS.map((group) => `${group.padEnd(15)}${stateOf(report, group)}\n`).join('');
  const details = findings.map(({ level, id, what, where, why, remedy, fixable }) =>
    [
      ...wrapped(`${level}: `, `${what} [${id}]`, columns),
      ...wrapped('  where   ', where, columns),
      ...wrapped('  why     ', why, columns),
      // One command a line, not wrapped: they are to be copied.
      `  remedy  ${remedy.replaceAll('; ', '\n          ')}${fixable ? '\n          or: weft doctor --fix' : ''}`,
    ].join('\n'),
  );
  const skipped = [...Map.groupBy(notChecked, ({ reason }) => reason)].flatMap(([reason, checks]) =>
    wrapped('  ', `${checks.map(({ check }) => check).join('; ')}: ${reason}`, columns),
  );
  return [
    summary,
    ...details.map((text) => `${text}\n`),
    ...(skipped.length === 0 ? [] : [`not checked\n${skipped.join('\n')}\n`]),
    ...(fixed.length === 0 ? [] : [fixedText(fixed)]),
    ...(allocation === null ? [] : [allocationText(allocation)]),
    `${conclusion(report)}\n`,
  ].join('\n');
}

function stateOf({ findings, notChecked }: Report, group: string): string {
  const levels = findings.filter((one) => one.group === group).map(({ level }) => level);
  const errors = levels.filter((level) => level === 'error').length;
  const parts = [
    ...(errors > 0 ? [counted(errors, 'error')] : []),
    ...(levels.length > errors ? [counted(levels.length - errors, 'warning')] : []),
  ];
  const skipped = notChecked.filter((one) => one.group === group).length;
  const text = parts.length === 0 ? 'ok' : parts.join(', ');
  return skipped === 0 ? text : `${text} (${counted(skipped, 'check')} not possible)`;
}

function fixedText(fixed: Report['fixed']): string {
  return `fixed\n${fixed.map(({ command, undo }) => `  ${command}\n    undo with: ${undo}\n`).join('')}`;
}

function allocationText({ id, attachments, files }: AllocationReport): string {
  const networks = attachments.map(
    ({ network, interface: name, addresses, state, reason }) =>
      `  network ${network}, ${name ?? 'interface unknown'}: ${addresses.join(', ')}; ${state} (${reason})\n`,
  );
  const texts = files.map(({ what, path, exists, lastLines }) => {
    const lines = lastLines.map((line) => `    | ${line}\n`).join('');
    return `  ${what}\n    ${path}${exists ? '' : ' (does not exist)'}\n${lines}`;
  });
  return `allocation ${id}\n${networks.join('')}${texts.join('')}`;
}

function conclusion({ findings, notChecked }: Report): string {
  const errors = findings.filter(({ level }) => level === 'error').length;
  const warnings = findings.length - errors;
  if (findings.length > 0) return `${counted(errors, 'error')}, ${counted(warnings, 'warning')}`;
  return notChecked.length === 0 ? 'no problem found' : 'no problem found by the checks that could run';
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** Lines of at most `columns` characters, the following ones indented by four more than `head` is. */
function wrapped(head: string, text: string, columns: number): string[] {
  const indent = ' '.repeat(head.startsWith(' ') ? head.length : 2);
  const lines: string[] = [];
  let line = head;
  for (const word of text.split(' ')) {
    const isFirst = line === head || line === indent;
    if (!isFirst && line.length + 1 + word.length > columns) {
      lines.push(line);
      line = indent;
    }
    line += line === head || line === indent ? word : ` ${word}`;
  }
  return [...lines, line];
}
