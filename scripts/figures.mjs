/**
 * usage: node scripts/figures.mjs
 * Draws docs/figures/*.svg from docs/figures/*.txt. A text source has one box or arrow a line; see `parse`.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const FOLDER = fileURLToPath(new URL('../docs/figures', import.meta.url));
const CELL = { width: 132, height: 76 };
const BOX = { width: 112, height: 48 };
const MARGIN = 16;

for (const file of readdirSync(FOLDER).filter((name) => name.endsWith('.txt'))) {
  const drawing = parse(readFileSync(join(FOLDER, file), 'utf8'));
  writeFileSync(join(FOLDER, file.replace(/\.txt$/, '.svg')), draw(drawing));
}

/**
 * @typedef {{ id: string, column: number, row: number, columns: number, rows: number, lines: string[] }} Shape
 * @typedef {{ from: string, to: string, label: string }} Arrow
 * @typedef {{ title: string, boxes: Shape[], frames: Shape[], arrows: Arrow[] }} Drawing
 *
 *     title TEXT
 *     frame ID COLUMN ROW COLUMNS ROWS TEXT      a labelled area behind boxes, in cells
 *     box ID COLUMN ROW TEXT [| TEXT]            one cell; `|` starts a second line
 *     arrow ID ID [TEXT]
 *
 * @param {string} text @returns {Drawing}
 */
function parse(text) {
  /** @type {Drawing} */
  const drawing = { title: '', boxes: [], frames: [], arrows: [] };
  for (const line of text.split('\n').filter((one) => one.trim() !== '' && !one.startsWith('#'))) {
    const [kind = '', ...words] = line.trim().split(/\s+/);
    if (kind === 'title') drawing.title = words.join(' ');
    else if (kind === 'frame') drawing.frames.push(shape(words, 5));
    else if (kind === 'box') drawing.boxes.push(shape(words, 3));
    else if (kind === 'arrow') {
      const [from = '', to = '', ...label] = words;
      drawing.arrows.push({ from, to, label: label.join(' ') });
    } else throw new Error(`unknown kind "${kind}" in line: ${line}`);
  }
  return drawing;
}

/** @param {string[]} words @param {3 | 5} numbers @returns {Shape} */
function shape(words, numbers) {
  const [id = '', column = '0', row = '0', columns = '1', rows = '1'] = words;
  const lines = words
    .slice(numbers)
    .join(' ')
    .split('|')
    .map((line) => line.trim());
  const size = numbers === 5 ? { columns: Number(columns), rows: Number(rows) } : { columns: 1, rows: 1 };
  return { id, column: Number(column), row: Number(row), ...size, lines };
}

/** @param {Drawing} drawing */
function draw({ title, boxes, frames, arrows }) {
  const shapes = [...boxes, ...frames];
  const width = 2 * MARGIN + CELL.width * Math.max(...shapes.map(({ column, columns }) => column + columns));
  const height = 2 * MARGIN + CELL.height * Math.max(...shapes.map(({ row, rows }) => row + rows));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12" role="img">`,
    `<title>${escape(title)}</title>`,
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="#444"/></marker></defs>',
    `<rect width="${width}" height="${height}" fill="white"/>`,
    ...frames.map(drawFrame),
    ...arrows.map((arrow) => drawArrow(arrow, boxes)),
    ...boxes.map(drawBox),
    '</svg>',
    '',
  ].join('\n');
}

/** @param {Shape} frame */
function drawFrame({ column, row, columns, rows, lines }) {
  const [x, y] = [MARGIN + column * CELL.width + 2, MARGIN + row * CELL.height + 2];
  const [w, h] = [columns * CELL.width - 4, rows * CELL.height - 4];
  return (
    `<rect x="${x}" y="${y}" width="${w}" height="${h}" rx="6" fill="#f3f6fa" stroke="#9db2c8"/>` +
    `<text x="${x + 8}" y="${y + 15}" fill="#47607a" font-size="11">${escape(lines.join(' '))}</text>`
  );
}

/** @param {Shape} box */
function drawBox(box) {
  const { x, y } = centre(box);
  const lines = box.lines.map(
    (line, at) =>
      `<text x="${x}" y="${y + 4 + 15 * (at - (box.lines.length - 1) / 2)}" text-anchor="middle">${escape(line)}</text>`,
  );
  return (
    `<rect x="${x - BOX.width / 2}" y="${y - BOX.height / 2}" width="${BOX.width}" height="${BOX.height}" rx="4" fill="white" stroke="#1b6ca8"/>` +
    lines.join('')
  );
}

/** @param {Arrow} arrow @param {readonly Shape[]} boxes */
function drawArrow({ from, to, label }, boxes) {
  const [start, end] = [from, to].map((id) => {
    const found = boxes.find((box) => box.id === id);
    if (found === undefined) throw new Error(`arrow names an unknown box: ${id}`);
    return centre(found);
  });
  if (start === undefined || end === undefined) throw new Error('an arrow needs two boxes');
  const horizontal = Math.abs(end.x - start.x) >= Math.abs(end.y - start.y);
  const sign = horizontal ? Math.sign(end.x - start.x) : Math.sign(end.y - start.y);
  const [dx, dy] = horizontal ? [(sign * BOX.width) / 2, 0] : [0, (sign * BOX.height) / 2];
  const points = { x1: start.x + dx, y1: start.y + dy, x2: end.x - dx, y2: end.y - dy };
  const middle = { x: (points.x1 + points.x2) / 2, y: (points.y1 + points.y2) / 2 };
  const text = horizontal
    ? `x="${middle.x}" y="${middle.y - 6}" text-anchor="middle"`
    : `x="${middle.x + 6}" y="${middle.y + 4}"`;
  return (
    `<line x1="${points.x1}" y1="${points.y1}" x2="${points.x2}" y2="${points.y2}" stroke="#444" marker-end="url(#tip)"/>` +
    (label === '' ? '' : `<text ${text} fill="#444" font-size="11">${escape(label)}</text>`)
  );
}

/** @param {Shape} shape */
function centre({ column, row }) {
  return { x: MARGIN + (column + 0.5) * CELL.width, y: MARGIN + (row + 0.5) * CELL.height + 6 };
}

/** @param {string} text */
function escape(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
