import type { PacketPath, Station } from './path.ts';

const CELL = { width: 150, height: 92 };
const BOX = { width: 128, height: 56 };
const MARGIN = 16;

/** The path as a picture in the style of docs/figures: one row for each direction, red where something is missing. */
export function pathSvg({ attachment, inbound, outbound }: PacketPath): string {
  const columns = Math.max(inbound.length, outbound.length);
  const width = 2 * MARGIN + columns * CELL.width;
  const height = 2 * MARGIN + 2 * CELL.height + 24;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12" role="img">`,
    `<title>Packet path of ${escape(attachment.container)}</title>`,
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="#444"/></marker></defs>',
    `<rect width="${width}" height="${height}" fill="white"/>`,
    `<text x="${MARGIN}" y="${MARGIN + 8}" fill="#47607a">${escape([attachment.container, attachment.job, attachment.group].filter((text) => text !== null).join('  '))}</text>`,
    ...[inbound, outbound].flatMap((stations, row) =>
      stations.flatMap((one, column) => drawn(one, row, column, column === stations.length - 1)),
    ),
    '</svg>',
    '',
  ].join('\n');
}

function drawn(
  { title, detail, missing, rules }: Station,
  row: number,
  column: number,
  isLast: boolean,
): string[] {
  const x = MARGIN + (column + 0.5) * CELL.width;
  const y = MARGIN + 24 + (row + 0.5) * CELL.height;
  const colour = missing.length > 0 ? '#b3261e' : '#1b6ca8';
  const lines = [
    title,
    cut(detail),
    missing.length > 0 ? cut(missing[0] ?? '') : rules.length > 0 ? `${rules.length} rules` : '',
  ].filter((text) => text !== '');
  const texts = lines.map(
    (line, at) =>
      `<text x="${x}" y="${y + 4 + 15 * (at - (lines.length - 1) / 2)}" text-anchor="middle"${at === 0 ? ' font-weight="bold"' : ' font-size="10"'}>${escape(line)}</text>`,
  );
  const full = [detail, ...missing, ...rules.map(({ chain, text }) => `${chain}: ${text}`)].join('\n');
  const tip = x + CELL.width - BOX.width / 2;
  return [
    `<g><title>${escape(full)}</title><rect x="${x - BOX.width / 2}" y="${y - BOX.height / 2}" width="${BOX.width}" height="${BOX.height}" rx="4" fill="white" stroke="${colour}"/>${texts.join('')}</g>`,
    ...(isLast
      ? []
      : [
          `<line x1="${x + BOX.width / 2}" y1="${y}" x2="${tip}" y2="${y}" stroke="#444" marker-end="url(#tip)"/>`,
        ]),
  ];
}

/** As much as fits into a box; the rest is in the tooltip. */
function cut(text: string): string {
  return text.length <= 22 ? text : `${text.slice(0, 21)}…`;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
