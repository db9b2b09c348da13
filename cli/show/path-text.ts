import { formatAge, type Paint } from '../terminal.ts';
import { portsText } from '../attachments/view.ts';
import type { PacketPath, Station } from './path.ts';

/** The path as a column of stations for each direction; what is missing is marked where the packet is lost. */
export function pathText(
  { attachment, inbound, outbound, proxy, warnings }: PacketPath,
  paint: Paint,
): string {
  const names = [
    attachment.job === null ? [] : [`job ${attachment.job}`],
    attachment.group === null ? [] : [`group ${attachment.group}`],
    [
      `network ${attachment.network}`,
      `back end ${attachment.backend}`,
      `added ${formatAge(attachment.ageSeconds)} ago`,
    ],
  ].flat();
  const head = `${paint(attachment.container, 'bold')}  ${names.join(', ')}\n`;
  const ports = attachment.ports.length === 0 ? 'no published ports' : `ports ${portsText(attachment.ports)}`;
  const direction = (title: string, stations: readonly Station[]): string =>
    `${paint(title, 'bold')}\n${stations.map((one, at) => stationText(one, at === stations.length - 1, paint)).join('')}`;
  return [
    `${head}${attachment.addresses.join(', ')}; ${ports}\n`,
    direction('Inbound', inbound),
    direction('Outbound', outbound),
    ...proxy,
    ...(warnings.length === 0
      ? []
      : [warnings.map((line) => `${paint('warning', 'yellow')}  ${line}\n`).join('')]),
  ].join('\n');
}

function stationText({ title, detail, rules, missing }: Station, isLast: boolean, paint: Paint): string {
  const mark = missing.length > 0 ? paint('x', 'red') : 'o';
  const line = isLast ? ' ' : '|';
  return [
    `  ${mark} ${title.padEnd(TITLE_WIDTH)} ${detail}`.trimEnd(),
    ...missing.map((reason) => `  ${line}   ${paint(`missing: ${reason}`, 'red')}`),
    ...rules.map(({ chain, text }) => `  ${line}   ${paint(`${chain}: ${text}`, 'dim')}`),
    ...(isLast ? [] : ['  |']),
  ]
    .map((text) => `${text}\n`)
    .join('');
}

const TITLE_WIDTH = 10;
