/** Latency against allocations as one SVG: a line a suite and backend, both axes logarithmic. */
import type { Measurement } from './measure.ts';

const WIDTH = 760;
const HEIGHT = 420;
const LEFT = 60;
const RIGHT = 210;
const TOP = 40;
const BOTTOM = 50;
const COLOURS = ['#1b6ca8', '#c0392b', '#2e8b57', '#8e5ea2', '#d98e04', '#555555'];

export function plot(measurements: readonly Measurement[], title: string): string {
  const series = Map.groupBy(measurements, ({ backend, suite }) => `${suite}, ${backend}`);
  const xs = measurements.map(({ present }) => present);
  const ys = measurements.map(({ verbs }) => verbs.ADD.median);
  const x = scale(Math.min(...xs), Math.max(...xs), LEFT, WIDTH - RIGHT);
  const y = scale(Math.min(...ys) * 0.8, Math.max(...ys) * 1.2, HEIGHT - BOTTOM, TOP);
  const lines = [...series].map(([name, points], at) => drawSeries(name, points, at, x, y));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>`,
    `<text x="${LEFT}" y="20">${escape(title)}</text>`,
    `<text x="${(WIDTH - RIGHT) / 2}" y="${HEIGHT - 12}">allocations on the host</text>`,
    `<text x="14" y="${HEIGHT / 2}" transform="rotate(-90 14 ${HEIGHT / 2})">ms per chain (median)</text>`,
    ...[...new Set(xs)].map((value) => tick(x(value), HEIGHT - BOTTOM + 16, String(value))),
    ...[20, 50, 100, 200, 500, 1000]
      .filter((value) => value >= Math.min(...ys) * 0.8 && value <= Math.max(...ys) * 1.2)
      .map((value) => grid(y(value), value)),
    ...lines,
    '</svg>',
    '',
  ].join('\n');
}

type Scale = (value: number) => number;

function scale(from: number, to: number, start: number, end: number): Scale {
  const span = Math.log(to) - Math.log(from) || 1;
  return (value) =>
    Math.round((start + ((Math.log(value) - Math.log(from)) / span) * (end - start)) * 10) / 10;
}

function drawSeries(name: string, points: readonly Measurement[], at: number, x: Scale, y: Scale): string {
  const colour = COLOURS[at % COLOURS.length] ?? 'black';
  const places = points.map(({ present, verbs }) => [x(present), y(verbs.ADD.median)] as const);
  const last = places.at(-1) ?? [0, 0];
  return [
    `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${places.map((place) => place.join(',')).join(' ')}"/>`,
    ...places.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3" fill="${colour}"/>`),
    `<text x="${last[0] + 8}" y="${last[1] + 4}" fill="${colour}">${escape(name)}</text>`,
  ].join('\n');
}

function grid(at: number, value: number): string {
  return `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${at}" y2="${at}" stroke="#dddddd"/>${tick(LEFT - 22, at + 4, String(value))}`;
}

function tick(x: number, y: number, text: string): string {
  return `<text x="${x}" y="${y}" text-anchor="middle" fill="#444444">${text}</text>`;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
