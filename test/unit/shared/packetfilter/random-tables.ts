import { parseRule } from '../../../../shared/packetfilter/iptables/parse.ts';
import { parseSave } from '../../../../shared/packetfilter/iptables/save-restore.ts';
import type { Rule, TableChange } from '../../../../shared/packetfilter/ruleset.ts';
import type { Table } from '../../../../shared/packetfilter/table.ts';

export type Chains = Record<string, string[]>;

/** `{ FORWARD: ['-j CNI-FORWARD'] }`: chains of the kernel's own are there anyway. */
export function table(chains: Chains): Table {
  const all: Chains = { INPUT: [], FORWARD: [], OUTPUT: [], ...chains };
  const lines = [
    '*filter',
    ...Object.keys(all).map((chain) => `:${chain} - [0:0]`),
    ...Object.entries(all).flatMap(([chain, rules]) => rules.map((text) => `-A ${chain} ${text}`)),
    'COMMIT\n',
  ];
  const parsed = parseSave(lines.join('\n'), 'ipv4', 'filter');
  if (parsed === undefined) throw new Error('unreadable table');
  return parsed;
}

export function rule(text: string): Rule {
  return parseRule(text) as Rule;
}

export function textsOf({ chains }: Table): Chains {
  return Object.fromEntries(
    [...chains].map(([chain, rules]) => [chain, Array.from(rules, ({ text }) => text)]),
  );
}

type Random = (below: number) => number;

const CHAINS = ['FORWARD', 'A', 'B', 'C'];
/** The first four are those that a change names. */
const TEXTS = [
  '-j DROP',
  '-j ACCEPT',
  '-j A',
  '-j B',
  '-p esp -j DROP',
  '-s 10.0.0.1/32 -j RETURN',
  '-p tcp -j C',
];

export function randomTable(random: Random): Table {
  return table(Object.fromEntries(CHAINS.map((chain) => [chain, some(random, 5)])));
}

export function randomChange(random: Random): Omit<TableChange, 'family' | 'table'> {
  const named = (): Rule => rule(pick(random, TEXTS.slice(0, 4)));
  const jumps = {
    chain: pick(random, ['FORWARD', 'C']),
    to: 'A',
    rules: Array.from({ length: random(3) }, () => rule('-j A')),
  };
  return {
    ensureChains: random(3) === 0 ? ['N'] : [],
    setChains: random(2) === 0 ? [{ chain: pick(random, ['A', 'B', 'N']), rules: ours(random) }] : [],
    setJumps: random(2) === 0 ? [jumps] : [],
    ensureRules: Array.from({ length: random(3) }, () => ({
      chain: pick(random, CHAINS),
      rule: named(),
      at: pick(random, ['first', 'prepended', 'last'] as const),
    })),
    removeRules: random(2) === 0 ? [{ chain: pick(random, CHAINS), rule: named() }] : [],
    deleteChains: random(4) === 0 ? [pick(random, ['B', 'C', 'X'])] : [],
  };
}

function pick<T>(random: Random, from: readonly T[]): T {
  return from[random(from.length)] as T;
}

function some(random: Random, most: number): string[] {
  return Array.from({ length: random(most + 1) }, () => pick(random, TEXTS));
}

function ours(random: Random): Rule[] {
  return some(random, 4)
    .filter((text) => !text.includes('esp'))
    .map(rule);
}
