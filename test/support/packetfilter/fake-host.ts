/**
 * A host whose packet filter is in memory: FakeNftables answers every netfilter socket of this process, and the iptables programs, which no
 * test runs, are of the nf_tables variant. Nothing of the real host is read or changed.
 */
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { decodeRule } from '../../../shared/packetfilter/iptables-nft/decode-rule.ts';
import { requestsFor } from '../../../shared/packetfilter/iptables-nft/driver.ts';
import { encodeRule } from '../../../shared/packetfilter/iptables-nft/encode-rule.ts';
import { kernelTable, NFT_FAMILIES } from '../../../shared/packetfilter/iptables-nft/kernel-table.ts';
import { isUnmanaged } from '../../../shared/packetfilter/compare.ts';
import { parseRule } from '../../../shared/packetfilter/iptables/parse.ts';
import { ruleText } from '../../../shared/packetfilter/iptables/render.ts';
import { NftConnection } from '../../../shared/packetfilter/nftables/connection.ts';
import { decodeExpressions } from '../../../shared/packetfilter/nftables/decode-expressions.ts';
import {
  verdict,
  VerdictCode,
  xtMatch,
  type Expression,
} from '../../../shared/packetfilter/nftables/expressions.ts';
import {
  addRule,
  deleteChain,
  FAMILY_NUMBERS,
  flushChain,
} from '../../../shared/packetfilter/nftables/messages.ts';
import { attributeOf, textOf } from '../../../shared/packetfilter/nftables/nlattr.ts';
import type { Family, TableName } from '../../../shared/packetfilter/ruleset.ts';
import { VARIANTS, wordsOf } from '../variants.ts';
import { listRuleset } from './fake-listing.ts';
import { FakeNftables, type FakeChain, type FakeRule, type FakeTable } from './fake-nftables.ts';
import { answerNetlinkSockets } from './fake-socket.ts';

export interface FakeHost {
  readonly kernel: FakeNftables;
  /** Begins again with a network namespace without tables. */
  reset(): void;
  /** One iptables or ip6tables command as an operator types it, with -t, and one of -N -A -I -F -X. */
  command(line: string): void;
  /** As `iptables-save -t TABLE` prints it, without comments and counters. */
  saved(table: TableName, family?: Family): string;
  /** As `nft -n -s list ruleset` prints it. */
  list(): string;
  /** All tables, iptables' as iptables-save prints them and the others as nft does; with the same rules the same text. */
  contents(): string;
}

/** Turns this process into such a host, for good. */
export function makeFakeHost(): FakeHost {
  const programs = mkdtempSync(`${tmpdir()}/weft-fake-host-`);
  for (const variant of VARIANTS) {
    writeFileSync(`${programs}/xtables-${variant}-multi`, '#!/bin/sh\nexit 1\n', { mode: 0o755 });
    for (const family of ['iptables', 'ip6tables']) {
      for (const action of ['save', 'restore']) {
        symlinkSync(`xtables-${variant}-multi`, `${programs}/${family}-${variant}-${action}`);
        if (variant === 'nft') symlinkSync(`xtables-nft-multi`, `${programs}/${family}-${action}`);
      }
    }
  }
  process.env['PATH'] = programs;
  // Root could read the tables of the real iptables-legacy, and would take the locks of the real plugins.
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) process.seteuid?.(UNPRIVILEGED);
  process.once('exit', () => {
    if (isRoot) process.seteuid?.(0);
    rmSync(programs, { recursive: true });
  });
  let kernel = new FakeNftables();
  answerNetlinkSockets(() => kernel);
  return {
    get kernel() {
      return kernel;
    },
    reset: () => {
      kernel = new FakeNftables();
    },
    command: (line) => carryOut(wordsOf(line)),
    saved: (table, family = 'ipv4') => savedText(kernel, table, family),
    list: () => listRuleset(kernel.tables),
    contents: () => kernel.tables.map((table) => tableContents(kernel, table)).join('\n'),
  };
}

/** The uid of the user `nobody`. */
const UNPRIVILEGED = 65_534;

function carryOut([program = '', ...args]: readonly string[]): void {
  const family = program === 'ip6tables' ? 'ipv6' : 'ipv4';
  const [table, rest] =
    args[0] === '-t' ? [args[1] as TableName, args.slice(2)] : (['filter', args] as const);
  const [verb, name = '', ...words] = rest;
  const chain = { table: { family: NFT_FAMILIES[family], name: table }, name };
  using connection = NftConnection.open();
  const made =
    requestsFor(kernelTable(connection, family, table), [{ do: 'createChain', chain: name }]) ?? [];
  switch (verb) {
    case '-N':
      connection.commit(made);
      break;
    case '-A':
    case '-I': {
      const number = /^\d+$/.test(words[0] ?? '') ? words.shift() : undefined;
      if (number !== undefined && number !== '1') throw new Error('inserts only at the head');
      const where = verb === '-A' ? 'last' : 'first';
      connection.commit([...made, addRule(chain, { expressions: expressionsOf(family, words) }, where)]);
      break;
    }
    case '-F':
      connection.commit([flushChain(chain)]);
      break;
    case '-X':
      connection.commit([deleteChain(chain)]);
      break;
    default:
      throw new Error(`unknown command: ${program} ${args.join(' ')}`);
  }
}

/** Chains and sets in the order of their names. */
function tableContents(kernel: FakeNftables, table: FakeTable): string {
  const family = FAMILIES.find((one) => FAMILY_NUMBERS[NFT_FAMILIES[one]] === table.family);
  const isOfIptables = table.name === 'nat' || table.name === 'filter';
  if (family !== undefined && isOfIptables) return savedText(kernel, table.name, family);
  const [head = '', ...blocks] = listRuleset([table]).split(/\n+(?=\t(?:chain|set|map) )/);
  return [head, ...blocks.map((block) => block.replace(/\n}\n*$/, '')).sort(), '}'].join('\n');
}

const FAMILIES = ['ipv4', 'ipv6'] as const;

/** A rule that the product does not understand is a match with its text, and the jump if it has one. */
function expressionsOf(family: Family, words: readonly string[]): readonly Expression[] {
  const text = words.map((word) => (/^[\w:./,!-]+$/.test(word) ? word : `"${word}"`)).join(' ');
  const rule = parseRule(text);
  const encoded = isUnmanaged(rule) ? undefined : encodeRule(family, rule);
  if (encoded !== undefined) return encoded.expressions;
  const [kind, target = ''] = words.slice(-2);
  const code = kind === '-g' ? VerdictCode.goto : VerdictCode.jump;
  const isJump = !/^[A-Z]+$/.test(target) || kind === '-g' || !(target.toLowerCase() in VerdictCode);
  return [xtMatch(UNKNOWN_MATCH, 0, Buffer.from(`${text}\0`)), ...(isJump ? [verdict(code, target)] : [])];
}

const UNKNOWN_MATCH = 'unknown';

function savedText(kernel: FakeNftables, name: TableName, family: Family): string {
  const table = kernel.table(FAMILY_NUMBERS[NFT_FAMILIES[family]], name);
  if (table === undefined) return '';
  const hooked = ({ hook }: FakeChain): number => (hook && attributeOf(hook, 1)?.readUInt32BE()) ?? 99;
  const chains = [...table.chains.values()].sort(
    (one, other) => hooked(one) - hooked(other) || (one.name < other.name ? -1 : 1),
  );
  return [
    `*${name}`,
    ...chains.map((chain) => `:${chain.name} ${chain.hook === undefined ? '-' : 'ACCEPT'}`),
    ...chains.flatMap((chain) => chain.rules.map((rule) => `-A ${chain.name} ${savedRule(family, rule)}`)),
    'COMMIT',
  ].join('\n');
}

function savedRule(family: Family, { expressions }: FakeRule): string {
  const rule = decodeRule(family, expressions);
  if (rule !== undefined) return ruleText(rule);
  const unknown = decodeExpressions(expressions).find(
    (one) => one.kind === 'match' && one.name === UNKNOWN_MATCH,
  );
  if (unknown?.kind === 'match') return textOf(unknown.info);
  throw new Error(`iptables cannot show this rule: ${expressions.toString('hex')}`);
}
