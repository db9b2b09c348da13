import { isatty } from 'node:tty';
import { writeAll } from '../shared/kernel/stdio.ts';

/** Text for terminals: tables that fit, colours, progress. */

export type Colour = 'red' | 'green' | 'yellow' | 'dim' | 'bold';

/** Colours a text; on anything but a terminal, or with NO_COLOR (no-color.org), returns it unchanged. */
export type Paint = (text: string, colour: Colour | undefined) => string;

const CODES: Readonly<Record<Colour, string>> = {
  red: '31',
  green: '32',
  yellow: '33',
  dim: '2',
  bold: '1',
};

export function painter(isTerminal = isatty(1)): Paint {
  if (!isTerminal || (process.env['NO_COLOR'] ?? '') !== '' || process.env['TERM'] === 'dumb')
    return (text) => text;
  return (text, colour) => (colour === undefined ? text : `\x1b[${CODES[colour]}m${text}\x1b[0m`);
}

/** Columns of the terminal on stdout; undefined when stdout is none, where nothing is cut. */
export function terminalWidth(): number | undefined {
  return isatty(1) ? process.stdout.columns : undefined;
}

export interface TableOptions {
  /** Lines are not longer than this. */
  readonly width?: number | undefined;
  /** Columns that are cut first when the table is too wide, by number; others are never cut. */
  readonly cut?: readonly number[];
  /** Colours a cell after its width is known. */
  readonly paint?: (cell: string, column: number) => string;
}

/** Columns as wide as their widest cell, two spaces apart, without spaces at the end of a line. */
export function formatTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  { width = Infinity, cut = [], paint = (cell) => cell }: TableOptions = {},
): string {
  const widths = head.map((title, at) =>
    Math.max(title.length, ...rows.map((row) => (row[at] ?? '').length)),
  );
  const total = (): number => widths.reduce((sum, one) => sum + one, 0) + 2 * (widths.length - 1);
  for (const at of cut) {
    const excess = total() - width;
    if (excess > 0) widths[at] = Math.max(SHORTEST, (widths[at] ?? 0) - excess);
  }
  const line = (cells: readonly string[], own: TableOptions['paint'] = (cell) => cell): string => {
    const fitted = cells.map((cell, at) => shorten(cell, widths[at] ?? 0));
    const last = fitted.findLastIndex((cell) => cell !== '');
    return fitted
      .slice(0, last + 1)
      .map((cell, at) => own(cell, at) + (at === last ? '' : ' '.repeat((widths[at] ?? 0) - cell.length)))
      .join('  ');
  };
  return [`${line(head)}\n`, ...rows.map((cells) => `${line(cells, paint)}\n`)].join('');
}

/** Enough for an allocation id that Nomad shortens. */
const SHORTEST = 8;

function shorten(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(1, width - 1))}…`;
}

/** The two largest units: `3d 4h`, `12m 5s`, `8s`. */
export function formatAge(seconds: number): string {
  const parts = UNITS.map(([unit, size], at) => {
    const above = UNITS[at - 1]?.[1] ?? Infinity;
    return { unit, count: Math.floor((seconds % above) / size) };
  });
  const first = parts.findIndex(({ count }) => count > 0);
  if (first < 0) return '0s';
  const shown = parts.slice(first, first + 2).filter(({ count }) => count > 0);
  return shown.map(({ unit, count }) => `${count}${unit}`).join(' ');
}

const UNITS: readonly (readonly [string, number])[] = [
  ['d', 86_400],
  ['h', 3600],
  ['m', 60],
  ['s', 1],
];

const QUIET_MS = 500;

/** One line on stderr that says what takes long, removed at the end; nothing during the first half second, or when stderr is no terminal. */
export class Progress {
  readonly #began = Date.now();
  readonly #quietMs: number;
  #shown = false;

  /** @param quietMs 0 for what is known to take long */
  constructor(quietMs = QUIET_MS) {
    this.#quietMs = quietMs;
  }

  step(text: string): void {
    if (!isatty(2) || Date.now() - this.#began < this.#quietMs) return;
    this.#shown = true;
    writeAll(2, `\r\x1b[K${text}`);
  }

  done(): void {
    if (this.#shown) writeAll(2, '\r\x1b[K');
  }
}
