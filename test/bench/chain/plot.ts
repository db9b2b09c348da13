/**
 * Two panels against the number of allocations on the host: milliseconds of an ADD, and the ratio of ours to the reference for ADD and DEL.
 * Both axes are logarithmic. One SVG, also drawn again from a saved file: `node test/bench/chain/plot.ts chain.json > chain.svg`.
 */
import { readFileSync } from 'node:fs';
import type { Measurement } from './measure.ts';

const PANEL = 380;
const GAP = 70;
const HEIGHT = 440;
const TOP = 60;
const BOTTOM = 120;
const LEFT = 70;
const RIGHT = 20;
const WIDTH = LEFT + 2 * PANEL + GAP + RIGHT;
const COLOURS: Readonly<Record<string, string>> = {
  'iptables-nft': '#1b6ca8',
  'iptables-legacy': '#c0392b',
  nftables: '#2e8b57',
};
const DASHES = ' stroke-dasharray="6 4"';

interface Line {
  readonly name: string;
  readonly colour: string;
  readonly isDashed: boolean;
  /** Allocations present, value. */
  readonly points: readonly (readonly [number, number])[];
}

type Scale = (value: number) => number;

/** @param title names machine and kernel: a figure without them means nothing */
export function plot(measurements: readonly Measurement[], title: string): string {
  const times = timeLines(measurements);
  const ratios = ratioLines(measurements);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>`,
    `<text x="${LEFT}" y="22" font-size="13">${escape(title)}</text>`,
    ...panel('ADD of one allocation, ms (median)', times, LEFT, [20, 50, 100, 200, 500, 1000, 2000]),
    ...panel(
      'time of Weft / time of the reference',
      ratios,
      LEFT + PANEL + GAP,
      [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2],
    ),
    '</svg>',
    '',
  ].join('\n');
}

function timeLines(measurements: readonly Measurement[]): Line[] {
  const series = Map.groupBy(measurements, ({ suite, backend }) => `${suite}, ${backend}`);
  return [...series].map(([name, all]) => ({
    name,
    colour: COLOURS[all[0]?.backend ?? ''] ?? '#555555',
    isDashed: all[0]?.suite === 'reference',
    points: all.map(({ present, verbs }) => [present, verbs.ADD.median] as const),
  }));
}

function ratioLines(measurements: readonly Measurement[]): Line[] {
  const reference = measurements.filter(({ suite }) => suite === 'reference');
  const ours = measurements.filter(({ suite }) => suite !== 'reference');
  return [...Map.groupBy(ours, ({ backend }) => backend)].flatMap(([backend, all]) =>
    (['ADD', 'DEL'] as const).flatMap((verb) => {
      const points = all.flatMap((own) => {
        const other = reference.find((one) => one.backend === backend && one.present === own.present);
        return other === undefined
          ? []
          : [[own.present, own.verbs[verb].median / other.verbs[verb].median] as const];
      });
      const colour = COLOURS[backend] ?? '#555555';
      return points.length === 0
        ? []
        : [{ name: `${verb}, ${backend}`, colour, isDashed: verb === 'DEL', points }];
    }),
  );
}

function panel(title: string, lines: readonly Line[], left: number, marks: readonly number[]): string[] {
  const xs = [...new Set(lines.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
  const ys = lines.flatMap(({ points }) => points.map(([, y]) => y));
  const x = scale(Math.min(...xs), Math.max(...xs), left + 12, left + PANEL - 12);
  const [least, most] = [Math.min(...ys) * 0.85, Math.max(...ys) * 1.15];
  const y = scale(least, most, HEIGHT - BOTTOM, TOP);
  return [
    `<text x="${left + PANEL / 2}" y="${TOP - 14}" text-anchor="middle" font-weight="bold">${escape(title)}</text>`,
    `<text x="${left + PANEL / 2}" y="${HEIGHT - BOTTOM + 36}" text-anchor="middle">allocations on the host</text>`,
    ...xs.map((value) => label(x(value), HEIGHT - BOTTOM + 18, value.toLocaleString('en'))),
    ...marks
      .filter((value) => value >= least && value <= most)
      .flatMap((value) => [
        `<line x1="${left}" x2="${left + PANEL}" y1="${y(value)}" y2="${y(value)}" stroke="${value === 1 ? '#888888' : '#dddddd'}"/>`,
        label(left - 22, y(value) + 4, value.toLocaleString('en')),
      ]),
    ...lines.map((line) => drawLine(line, x, y)),
    ...lines.map((line, at) =>
      legend(line, left + (at % 2) * (PANEL / 2), HEIGHT - BOTTOM + 60 + 20 * (at >> 1)),
    ),
  ];
}

function scale(from: number, to: number, start: number, end: number): Scale {
  const span = Math.log(to) - Math.log(from) || 1;
  return (value) =>
    Math.round((start + ((Math.log(value) - Math.log(from)) / span) * (end - start)) * 10) / 10;
}

function drawLine({ colour, isDashed, points }: Line, x: Scale, y: Scale): string {
  const places = points.map(([present, value]) => [x(present), y(value)] as const);
  return [
    `<polyline fill="none" stroke="${colour}" stroke-width="2"${isDashed ? DASHES : ''} points="${places.map((place) => place.join(',')).join(' ')}"/>`,
    ...places.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3" fill="${colour}"/>`),
  ].join('\n');
}

function legend({ name, colour, isDashed }: Line, left: number, at: number): string {
  return [
    `<line x1="${left}" x2="${left + 28}" y1="${at}" y2="${at}" stroke="${colour}" stroke-width="2"${isDashed ? DASHES : ''}/>`,
    `<text x="${left + 36}" y="${at + 4}" fill="#222222">${escape(name)}</text>`,
  ].join('\n');
}

function label(x: number, y: number, text: string): string {
  return `<text x="${x}" y="${y}" text-anchor="middle" fill="#444444">${text}</text>`;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

const [, program, file] = process.argv;
if (import.meta.filename === program && file !== undefined) {
  const { machine, results } = JSON.parse(readFileSync(file, 'utf8')) as {
    machine: string;
    results: { list: string; measurements: Measurement[] }[];
  };
  const [{ list, measurements } = { list: '', measurements: [] }] = results;
  process.stdout.write(plot(measurements, `${list} on ${machine}`));
}
