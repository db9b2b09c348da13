import type { Operation } from '../diff.ts';
import { parseRule } from './parse.ts';
import { splitArgs } from './render.ts';
import type { Family, UnmanagedRule, Rule, TableName } from '../ruleset.ts';
import type { PortRanges } from '../port-ranges.ts';
import type { Entry, Table } from '../table.ts';

/**
 * One table of the output of iptables-save:
 *
 *     # comment                    *nat          the table begins
 *     :POSTROUTING ACCEPT [0:0]                  a built-in chain, its policy and counters
 *     :CNI-FORWARD - [0:0]                       a user-defined chain
 *     -A POSTROUTING -s 10.0.0.2/32 -j CNI-…     rules in their order
 *     COMMIT                                     the table ends
 *
 * @returns undefined if the table is missing: iptables-nft leaves out a table with rules that it cannot express
 */
export function parseSave(output: string, family: Family, table: TableName): Table | undefined {
  const start = output.startsWith(`*${table}\n`) ? 0 : output.indexOf(`\n*${table}\n`);
  const end = output.indexOf('\nCOMMIT', start);
  if (start < 0 || end < 0) return undefined;
  const chains = new Map<string, Entry[]>();
  const policies = new Map<string, 'accept' | 'drop'>();
  for (const line of output.slice(start, end).split('\n')) {
    if (line.startsWith('-A ')) {
      const blank = line.indexOf(' ', 3);
      const chain = blank < 0 ? line.slice(3) : line.slice(3, blank);
      chains.get(chain)?.push(new SavedRule(blank < 0 ? '' : line.slice(blank + 1)));
    } else if (line.startsWith(':')) {
      const [chain = '', policy] = line.slice(1).split(' ');
      chains.set(chain, []);
      if (policy === 'ACCEPT' || policy === 'DROP')
        policies.set(chain, policy === 'DROP' ? 'drop' : 'accept');
    }
  }
  return { family, table, chains, policies };
}

/** A table that does not exist yet. */
export function emptyTable(family: Family, table: TableName): Table {
  return { family, table, chains: new Map(KERNEL_CHAINS[table].map((chain) => [chain, []])) };
}

const KERNEL_CHAINS = {
  filter: ['INPUT', 'FORWARD', 'OUTPUT'],
  nat: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'],
} as const;

/** A rule as iptables-save prints it; parsed on first use, because a table may have ten thousand. */
class SavedRule implements Entry {
  readonly text: string;
  #rule: Rule | UnmanagedRule | undefined;

  constructor(text: string) {
    this.text = text;
  }

  get rule(): Rule | UnmanagedRule {
    this.#rule ??= parseRule(this.text);
    return this.#rule;
  }

  jumpsTo(chain: string): boolean {
    if (!this.text.includes(chain)) return false;
    const words = splitArgs(this.text);
    return words.some((word, at) => word === chain && JUMPS.has(words[at - 1] ?? ''));
  }

  /** A comment may contain text that looks like a port list: then there are two, and the rule has to be parsed. */
  cannotBeFor(ports: PortRanges): boolean {
    const lists = [...this.text.matchAll(/ -m multiport --dports ([0-9:,]+)/g)];
    if (lists.length !== 1) return false;
    return (lists[0]?.[1] ?? '').split(',').every((text) => {
      const [first, last] = text.split(':');
      return !ports.overlaps({ first: Number(first), last: Number(last ?? first) });
    });
  }
}

const JUMPS = new Set(['-j', '-g']);

/**
 * Input for `iptables-restore --noflush` that carries out the steps as one transaction. `-N` creates chains, because a `:CHAIN` line would flush
 * a chain that another program has created meanwhile; `-N` fails, and the table is read again.
 */
export function restoreInput(table: TableName, steps: readonly Operation[]): string {
  return [`*${table}`, ...steps.map(line), 'COMMIT', ''].join('\n');
}

/** One step as arguments of iptables; also for messages. */
export function line(step: Operation): string {
  switch (step.do) {
    case 'createChain':
      return `-N ${step.chain}`;
    case 'flushChain':
      return `-F ${step.chain}`;
    case 'deleteChain':
      return `-X ${step.chain}`;
    case 'deleteRule':
      return `-D ${step.chain} ${step.entry.text}`;
    case 'insertRule':
      return `-I ${step.chain} ${step.index + 1} ${step.entry.text}`;
    case 'appendRule':
      return `-A ${step.chain} ${step.entry.text}`;
  }
}
