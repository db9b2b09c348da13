import type { Measurement } from './measure.ts';

const COLUMNS = [
  'present',
  'suite',
  'ADD',
  'p95',
  'CHECK',
  'DEL',
  'p95',
  'ADD cpu',
  'DEL cpu',
  'ADD by plugin',
];
const WIDTHS = [8, 10, 8, 8, 8, 8, 8, 8, 8, 0];

export function printHeader(): void {
  console.log(line(COLUMNS));
}

export function printRow({ present, suite, verbs, cpu, plugins }: Measurement): void {
  const { ADD, CHECK, DEL } = verbs;
  const numbers = [ADD.median, ADD.p95, CHECK.median, DEL.median, DEL.p95, cpu.ADD, cpu.DEL].map((value) =>
    Number.isNaN(value) ? '-' : value.toFixed(1),
  );
  console.log(
    line([
      String(present),
      suite,
      ...numbers,
      Object.entries(plugins)
        .map(([name, ms]) => `${name} ${ms.toFixed(0)}`)
        .join(', '),
    ]),
  );
}

/** Ours against the reference at each size, and ours against itself alone: ratios of medians of one run. */
export function printRatios(measurements: readonly Measurement[]): void {
  const backends = [...new Set(measurements.map(({ backend }) => backend))];
  for (const backend of backends) {
    const of = (suite: string): Measurement[] =>
      measurements.filter((one) => one.backend === backend && one.suite === suite);
    console.log(`\nratios on ${backend}`);
    for (const ours of of('weft'))
      printRatio(
        ours,
        of('weft')[0],
        of('reference').find(({ present }) => present === ours.present),
      );
  }
}

function printRatio(
  ours: Measurement,
  alone: Measurement | undefined,
  theirs: Measurement | undefined,
): void {
  const parts = [`${String(ours.present).padStart(6)} present:`];
  for (const verb of ['ADD', 'CHECK', 'DEL'] as const) {
    const against =
      theirs === undefined
        ? ''
        : ` ours/reference ${(ours.verbs[verb].median / theirs.verbs[verb].median).toFixed(2)},`;
    const growth =
      alone === undefined
        ? ''
        : ` ours/ours alone ${(ours.verbs[verb].median / alone.verbs[verb].median).toFixed(2)}`;
    parts.push(`${verb}${against}${growth};`);
  }
  console.log(parts.join(' '));
}

function line(cells: readonly string[]): string {
  return cells.map((cell, at) => (WIDTHS[at] === 0 ? `  ${cell}` : cell.padStart(WIDTHS[at] ?? 8))).join('');
}
