import type { Measurement } from './measure.ts';

/** Heading, width and cell of each column; the first are right-aligned. */
const COLUMNS: readonly (readonly [string, number, (one: Measurement) => string])[] = [
  ['present', 8, ({ present }) => String(present)],
  ['suite', 10, ({ suite }) => suite],
  ['ADD', 8, ({ verbs }) => ms(verbs.ADD.median)],
  ['p95', 8, ({ verbs }) => ms(verbs.ADD.p95)],
  ['CHECK', 8, ({ verbs }) => ms(verbs.CHECK.median)],
  ['DEL', 8, ({ verbs }) => ms(verbs.DEL.median)],
  ['p95', 8, ({ verbs }) => ms(verbs.DEL.p95)],
  ['cpu ADD', 8, ({ cpu }) => ms(cpu.ADD)],
  ['cpu DEL', 8, ({ cpu }) => ms(cpu.DEL)],
  ['children', 9, ({ children }) => `${children.ADD}/${children.DEL}`],
  ['MiB', 6, ({ peakMemory }) => peakMemory.toFixed(0)],
];

export function printHeader(): void {
  console.log(`${COLUMNS.map(([heading, width]) => heading.padStart(width)).join('')}  ADD by plugin`);
}

export function printRow(row: Measurement): void {
  const cells = COLUMNS.map(([, width, cell]) => cell(row).padStart(width)).join('');
  const plugins = Object.entries(row.plugins).map(([name, took]) => `${name} ${took.toFixed(0)}`);
  console.log(`${cells}  ${plugins.join(', ')}`);
  const { floor, beyondStarts } = row;
  if (floor === undefined || beyondStarts === undefined) return;
  console.log(
    `${''.padStart(18)}  without processes: ADD ${ms(floor.ADD.median)}, DEL ${ms(floor.DEL.median)}; ` +
      `an ADD less its plugins' bare starts: ${ms(beyondStarts.median)}`,
  );
}

/** Ours against the reference at each size, and ours against itself alone: ratios of medians of one run. */
export function printRatios(measurements: readonly Measurement[]): void {
  const of = (suite: string): Measurement[] => measurements.filter((one) => one.suite === suite);
  for (const suite of ['weft', 'agent']) {
    for (const ours of of(suite)) {
      const theirs = of('reference').find(({ present }) => present === ours.present);
      printRatio(ours, of(suite)[0], theirs);
    }
  }
}

function printRatio(
  ours: Measurement,
  alone: Measurement | undefined,
  theirs: Measurement | undefined,
): void {
  const parts = (['ADD', 'CHECK', 'DEL'] as const).flatMap((verb) => {
    const against = ours.verbs[verb].median / (theirs?.verbs[verb].median ?? Number.NaN);
    const growth = ours.verbs[verb].median / (alone?.verbs[verb].median ?? Number.NaN);
    return [
      ...(Number.isNaN(against) ? [] : [`${verb} ours/reference ${against.toFixed(2)}`]),
      ...(Number.isNaN(growth) || alone === ours ? [] : [`${verb} ours/ours alone ${growth.toFixed(2)}`]),
    ];
  });
  if (parts.length > 0)
    console.log(`${String(ours.present).padStart(8)} present, ${ours.suite}: ${parts.join(', ')}`);
}

function ms(value: number): string {
  return Number.isNaN(value) ? '-' : value.toFixed(1);
}
