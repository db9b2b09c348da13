import { ruleText } from '../../shared/packetfilter/iptables/render.ts';
import { chainCommand, ruleCommand, tableCommand } from '../../shared/packetfilter/nftables/text.ts';
import { nftPlan } from './nft-plan.ts';
import type { TablePlan } from './plan.ts';

/** A plan as text that the backend's own tool takes: `iptables-restore --noflush` and its twin for IPv6, or `nft -f`. */
export function renderPlan(tables: readonly TablePlan[], backend: 'iptables' | 'nftables'): string {
  return backend === 'nftables' ? nftScript(tables) : restoreScripts(tables);
}

/** Both families in one text, a comment before each: iptables-restore reads one family at a time. */
function restoreScripts(tables: readonly TablePlan[]): string {
  return (['ipv4', 'ipv6'] as const)
    .flatMap((family) => {
      const own = tables.filter((plan) => plan.family === family);
      const tool = family === 'ipv4' ? 'iptables-restore' : 'ip6tables-restore';
      return own.length === 0 ? [] : [`# ${tool} --noflush`, ...own.flatMap(tableLines)];
    })
    .map((line) => `${line}\n`)
    .join('');
}

function tableLines({ table, chains, hooks }: TablePlan): string[] {
  return [
    `*${table}`,
    ...chains.map(({ chain }) => `:${chain} - [0:0]`),
    ...[...hooks, ...chains].flatMap(({ chain, rules }) =>
      rules.map((rule) => `-A ${chain} ${ruleText(rule)}`),
    ),
    'COMMIT',
  ];
}

/** Replaces a table of the same name in the same transaction, whether there is one or not. */
function nftScript(tables: readonly TablePlan[]): string {
  const { table, chains, rules } = nftPlan(tables);
  const name = `${table.family} ${table.name}`;
  const lines = [
    tableCommand(table),
    `delete table ${name}`,
    tableCommand(table),
    ...chains.map(chainCommand),
    ...rules.map(ruleCommand),
  ];
  return lines.map((line) => `${line}\n`).join('');
}
