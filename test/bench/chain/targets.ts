/** The figures to hold, each a ratio of medians of one run or a number of milliseconds. */
import type { Verb } from './calls.ts';
import type { Measurement } from './measure.ts';
import type { Backend } from './suites.ts';

export interface Verdict {
  readonly what: string;
  readonly value: number;
  readonly limit: number;
}

/** Ours against the reference with consul-cni's commands: [backend, allocations present, verb, limit]. */
const AGAINST_REFERENCE: readonly (readonly [Backend, number, Verb, number])[] = [
  ['iptables-nft', 1, 'ADD', 1.4],
  ['iptables-nft', 1000, 'ADD', 0.35],
  ['iptables-nft', 1, 'DEL', 1],
  ['iptables-nft', 1000, 'DEL', 1],
  ['iptables-legacy', 1, 'ADD', 1.3],
  ['iptables-legacy', 1000, 'ADD', 0.3],
];
/** With the node agent, the same. */
const AGENT_AGAINST_REFERENCE: typeof AGAINST_REFERENCE = [
  ...[1, 30, 100, 300].map((present) => ['iptables-nft', present, 'ADD', 0.15] as const),
  ['iptables-nft', 1000, 'ADD', 0.17],
  ...[1, 30, 100, 300, 1000].map((present) => ['iptables-nft', present, 'DEL', 0.22] as const),
  ['iptables-legacy', 1, 'ADD', 0.5],
  ['iptables-legacy', 1, 'DEL', 0.8],
];
/** With the node agent and that many present, against the same with one. */
const GROWTH: readonly (readonly [Backend, number, number])[] = [['nftables', 5000, 1.3]];

/** Only of what this run measured. */
export function verdicts(measurements: readonly Measurement[]): Verdict[] {
  const find = (backend: Backend, suite: string, present: number): Measurement | undefined =>
    measurements.find((one) => one.backend === backend && one.suite === suite && one.present === present);
  const found: Verdict[] = [];
  const compare = (
    what: string,
    limit: number,
    verb: Verb,
    pair: readonly (Measurement | undefined)[],
  ): void => {
    const [ours, other] = pair.map((one) => one?.verbs[verb].median);
    if (ours !== undefined && other !== undefined) found.push({ what, limit, value: ours / other });
  };
  for (const [backend, present, verb, limit] of AGAINST_REFERENCE) {
    const pair = [find(backend, 'weft', present), find(backend, 'reference', present)];
    compare(`${backend}, ${present} present, ${verb}: ours / reference`, limit, verb, pair);
  }
  for (const [backend, present, verb, limit] of AGENT_AGAINST_REFERENCE) {
    const pair = [find(backend, 'agent', present), find(backend, 'reference', present)];
    compare(`${backend}, ${present} present, ${verb}: with the agent / reference`, limit, verb, pair);
  }
  for (const [backend, many, limit] of GROWTH) {
    const pair = [find(backend, 'agent', many), find(backend, 'agent', 1)];
    for (const verb of ['ADD', 'DEL'] as const)
      compare(`${backend}, ${verb}: with the agent, ${many} present / 1`, limit, verb, pair);
  }
  return found;
}

/** @returns whether every figure holds */
export function printVerdicts(found: readonly Verdict[]): boolean {
  if (found.length > 0) console.log('\nfigures to hold');
  for (const { what, value, limit } of found) {
    console.log(`  ${value <= limit ? 'held  ' : 'MISSED'} ${value.toFixed(2)} (at most ${limit})  ${what}`);
  }
  return found.every(({ value, limit }) => value <= limit);
}
