import { portsText } from '../attachments/view.ts';
import { formatAge, formatTable, type Colour, type Paint } from '../terminal.ts';
import type { Status } from './report.ts';

/** One screen: the node, its networks, its attachments, then what is wrong. */
export function statusText(status: Status, paint: Paint, width: number | undefined): string {
  const sections = [
    nodeLines(status, paint),
    ...(status.networks.length === 0 ? [] : [networkTable(status, width)]),
    attachmentTable(status, paint, width),
    findings(status, paint),
  ];
  return sections.filter((text) => text !== '').join('\n');
}

function nodeLines({ version, agent, policy, drift }: Status, paint: Paint): string {
  const release =
    agent.state === 'other release' ? `running, of another release (${agent.release})` : agent.state;
  const deny =
    policy === null || policy.deny.length === 0 ? 'unrestricted' : `not to ${policy.deny.join(', ')}`;
  const except = policy === null || policy.allow.length === 0 ? '' : `, except ${policy.allow.join(', ')}`;
  const missing =
    drift === null
      ? 'unchecked'
      : drift.length === 0
        ? 'none'
        : `${drift.length} ${drift.length === 1 ? 'piece' : 'pieces'} missing; restore with: weft repair`;
  return [
    `Weft     ${version}`,
    `Agent    ${paint(release, agent.state === 'running' ? 'green' : agent.state === 'other release' ? 'yellow' : undefined)}`,
    policy === null ? 'Policy   unknown' : `Policy   isolation ${policy.isolation}, egress ${deny}${except}`,
    `Drift    ${paint(missing, drift === null ? undefined : drift.length === 0 ? 'green' : 'red')}`,
    '',
  ].join('\n');
}

function networkTable({ networks }: Status, width: number | undefined): string {
  const rows = networks.flatMap(({ name, bridge, attachments, pools }) =>
    (pools.length === 0 ? [undefined] : pools).map((pool, at) => [
      at === 0 ? name : '',
      at === 0 ? (bridge ?? '-') : '',
      at === 0 ? String(attachments) : '',
      pool?.subnet ?? '-',
      pool === undefined ? '-' : String(pool.used),
      pool === undefined ? '-' : pool.size === null ? 'plenty' : String(pool.size - pool.used),
    ]),
  );
  return formatTable(['NETWORK', 'BRIDGE', 'ATTACHMENTS', 'SUBNET', 'USED', 'FREE'], rows, {
    width,
    cut: [0],
  });
}

const COLOURS: Readonly<Record<string, Colour>> = {
  ok: 'green',
  warning: 'yellow',
  failed: 'red',
  gone: 'dim',
  unknown: 'dim',
};

function attachmentTable({ attachments }: Status, paint: Paint, width: number | undefined): string {
  if (attachments.length === 0) return 'no attachments\n';
  // An allocation is known by the first eight digits of its id, as in Nomad, where they are enough to tell it from the others.
  const short = shortestIds(attachments.map(({ container }) => container));
  const rows = attachments.map((one) => [
    short(one.container),
    one.job ?? '-',
    one.group ?? '-',
    one.addresses[0] ?? '-',
    portsText(one.ports) || '-',
    one.backend,
    formatAge(one.ageSeconds),
    one.state === 'running' ? one.health : one.state,
  ]);
  const head = ['ALLOC', 'JOB', 'GROUP', 'ADDRESS', 'PORTS', 'BACK END', 'AGE', 'HEALTH'];
  const last = head.length - 1;
  return formatTable(head, rows, {
    width,
    cut: [4, 1, 2, 0],
    paint: (cell, column) => (column === last ? paint(cell, COLOURS[cell]) : cell),
  });
}

function findings({ attachments, problems, drift }: Status, paint: Paint): string {
  const lines = [
    ...problems.map((problem) => `${paint('error', 'red')}  ${problem}`),
    ...(drift ?? []).slice(0, MOST_MISSING).map((piece) => `${paint('missing', 'red')}  ${piece}`),
    ...attachments.flatMap(({ container, state, problems: failed, warnings, reason }) => [
      ...failed.map((problem) => `${paint('error', 'red')}  ${container}: ${problem}`),
      ...(state === 'running' ? warnings : [reason]).map(
        (warning) => `${paint('warning', 'yellow')}  ${container}: ${warning}`,
      ),
    ]),
  ];
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
}

/** `weft repair --dry-run` lists all. */
const MOST_MISSING = 5;

/** Ids as Nomad shortens them, unless two begin alike. */
function shortestIds(ids: readonly string[]): (id: string) => string {
  const longest = Math.max(0, ...ids.map((id) => id.length));
  let length = 8;
  const distinct = new Set(ids).size;
  while (length < longest && new Set(ids.map((id) => id.slice(0, length))).size < distinct) length++;
  return (id) => id.slice(0, length);
}
