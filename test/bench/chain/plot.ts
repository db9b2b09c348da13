/** Latency against allocations as one SVG: ADD and DEL side by side, a line a suite and backend, both axes logarithmic. */
import type { Measurement } from './measure.ts';

const PANEL = 400;
const GAP = 60;
const LEGEND = 190;
const HEIGHT = 400;
const TOP = 60;
const BOTTOM = 50;
const LEFT = 60;
const WIDTH = LEFT + 2 * PANEL + GAP + LEGEND;
/** A colour a backend; the reference is drawn in dashes. */
const COLOURS: Readonly<Record<string, string>> = {
  'iptables-nft': '#1b6ca8',
  'iptables-legacy': '#c0392b',
  nftables: '#2e8b57',
};

type Verb = 'ADD' | 'DEL';
type Scale = (value: number) => number;

export function plot(measurements: readonly Measurement[], title: string): string {
  const times = measurements.flatMap(({ verbs }) => [verbs.ADD.median, verbs.DEL.median]);
  const y = scale(Math.min(...times) * 0.8, Math.max(...times) * 1.2, HEIGHT - BOTTOM, TOP);
  const series = [...Map.groupBy(measurements, ({ backend, suite }) => `${suite}, ${backend}`)];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>`,
    `<text x="${LEFT}" y="22" font-size="13">${escape(title)}</text>`,
    `<text x="16" y="${(TOP + HEIGHT - BOTTOM) / 2}" text-anchor="middle" transform="rotate(-90 16 ${(TOP + HEIGHT - BOTTOM) / 2})">ms per chain (median)</text>`,
    ...(['ADD', 'DEL'] as const).flatMap((verb, at) =>
      drawPanel(verb, series, LEFT + at * (PANEL + GAP), y, times),
    ),
    ...series.map(([name, points], at) => legend(name, points, TOP + 12 + 22 * at)),
    '</svg>',
    '',
  ].join('\n');
}

type Series = readonly (readonly [string, readonly Measurement[]])[];

function drawPanel(verb: Verb, series: Series, left: number, y: Scale, times: readonly number[]): string[] {
  const xs = [...new Set(series.flatMap(([, points]) => points.map(({ present }) => present)))];
  const x = scale(Math.min(...xs), Math.max(...xs), left + 12, left + PANEL - 12);
  const middle = left + PANEL / 2;
  const [least, most] = [Math.min(...times) * 0.8, Math.max(...times) * 1.2];
  return [
    `<text x="${middle}" y="${TOP - 12}" text-anchor="middle" font-weight="bold">${verb}</text>`,
    `<text x="${middle}" y="${HEIGHT - 12}" text-anchor="middle">allocations on the host</text>`,
    ...xs.map((value) => tick(x(value), HEIGHT - BOTTOM + 18, String(value))),
    ...[20, 50, 100, 200, 500, 1000]
      .filter((value) => value >= least && value <= most)
      .map((value) => grid(left, y(value), value)),
    ...series.map(([, points]) => drawSeries(verb, points, x, y)),
  ];
}

function scale(from: number, to: number, start: number, end: number): Scale {
  const span = Math.log(to) - Math.log(from) || 1;
  return (value) =>
    Math.round((start + ((Math.log(value) - Math.log(from)) / span) * (end - start)) * 10) / 10;
}

function drawSeries(verb: Verb, points: readonly Measurement[], x: Scale, y: Scale): string {
  const places = points.map(({ present, verbs }) => [x(present), y(verbs[verb].median)] as const);
  const { colour, dashes } = styleOf(points);
  return [
    `<polyline fill="none" stroke="${colour}" stroke-width="2"${dashes} points="${places.map((place) => place.join(',')).join(' ')}"/>`,
    ...places.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3" fill="${colour}"/>`),
  ].join('\n');
}

function legend(name: string, points: readonly Measurement[], at: number): string {
  const left = WIDTH - LEGEND + 16;
  const { colour, dashes } = styleOf(points);
  return [
    `<line x1="${left}" x2="${left + 28}" y1="${at}" y2="${at}" stroke="${colour}" stroke-width="2"${dashes}/>`,
    `<text x="${left + 36}" y="${at + 4}" fill="#222222">${escape(name)}</text>`,
  ].join('\n');
}

function styleOf([first]: readonly Measurement[]): { colour: string; dashes: string } {
  const colour = COLOURS[first?.backend ?? ''] ?? '#555555';
  return { colour, dashes: first?.suite === 'reference' ? ' stroke-dasharray="6 4"' : '' };
}

function grid(left: number, at: number, value: number): string {
  const line = `<line x1="${left}" x2="${left + PANEL}" y1="${at}" y2="${at}" stroke="#dddddd"/>`;
  return `${line}${tick(left - 18, at + 4, String(value))}`;
}

function tick(x: number, y: number, text: string): string {
  return `<text x="${x}" y="${y}" text-anchor="middle" fill="#444444">${text}</text>`;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
