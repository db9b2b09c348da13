import { findProgram, runProgram } from '../../shared/process/run-program.ts';

/** A rule of the host that is about one container, with its counters where it has any. */
export interface HostRule {
  /** `nat CNI-HOSTPORT-DNAT`, `inet weft_policy from_networks` */
  readonly chain: string;
  readonly text: string;
}

/**
 * Rules and elements of the host's packet filter that name one of the texts, or are in a chain that such a rule jumps to; and the policy of the
 * node. As iptables-save and nft print them.
 * @param names the container's id and addresses, names of its chains
 */
export function hostRules(names: readonly string[]): HostRule[] {
  return [...iptablesRules(names), ...nftRules(names)];
}

function iptablesRules(names: readonly string[]): HostRule[] {
  return VARIANTS.flatMap((variant) =>
    ['iptables', 'ip6tables'].flatMap((family) => {
      // Reading a table of the legacy variant would create it.
      const active = variant === 'legacy' && !usesLegacy(family);
      const program = active ? undefined : findProgram(`${family}-${variant}-save`);
      return program === undefined ? [] : parseSave(output(program, ['-c']), names);
    }),
  );
}

const VARIANTS = ['nft', 'legacy'] as const;

function usesLegacy(family: string): boolean {
  const program = findProgram(family);
  return program !== undefined && output(program, ['--version']).includes('legacy');
}

/** @param text of iptables-save with counters; pure, for tests */
export function parseSave(text: string, names: readonly string[]): HostRule[] {
  let table = '';
  const rules: HostRule[] = [];
  const own = new Set<string>();
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) table = line.slice(1);
    const [, counters, chain = '', rest = ''] = /^(\[\d+:\d+\]) -A (\S+) ?(.*)$/.exec(line) ?? [];
    if (counters === undefined) continue;
    const isNamed = names.some((name) => hasWord(rest, name) || hasWord(chain, name));
    if (!isNamed && !own.has(chain)) continue;
    const target = /-j (CNI-\S+)/.exec(rest)?.[1];
    if (isNamed && target !== undefined && !SHARED.test(target)) own.add(target);
    rules.push({ chain: `${table} ${chain}`, text: `${counters} ${rest}` });
  }
  return rules;
}

/** Chains with the rules of all containers. */
const SHARED = /^CNI-(FORWARD|HOSTPORT|ISOLATION|ADMIN)/;

function nftRules(names: readonly string[]): HostRule[] {
  const program = findProgram('nft');
  return program === undefined ? [] : parseNft(output(program, ['list', 'ruleset']), names);
}

/** @param text of `nft list ruleset`; only tables of the suite, not those of iptables-nft */
export function parseNft(text: string, names: readonly string[]): HostRule[] {
  let [table, object] = ['', ''];
  const rules: HostRule[] = [];
  for (const line of text.split('\n')) {
    const opened = /^(?:table (\S+ \S+)|\t(?:chain|set|map) (\S+)) \{/.exec(line);
    if (opened?.[1] !== undefined) [table, object] = [opened[1], ''];
    else if (opened?.[2] !== undefined) object = opened[2];
    else if (OWN_TABLES.test(table) && object !== '') {
      const parts = line
        .replace(/^\s*(elements = \{)?\s*/, '')
        .replace(/\s*\}?$/, '')
        .split(/,\s*(?=[^"]*(?:"[^"]*"[^"]*)*$)/)
        .filter((part) => part !== '');
      const isPolicy = table === 'inet weft_policy' && object === 'from_networks';
      for (const part of parts)
        if (isPolicy || names.some((name) => hasWord(part, name)))
          rules.push({ chain: `${table} ${object}`, text: part });
    }
  }
  return rules;
}

const OWN_TABLES = /^inet (weft_|cni_plugins_)/;

/** `10.0.0.1` is not in `10.0.0.10`. */
function hasWord(text: string, word: string): boolean {
  const at = text.indexOf(word);
  if (at < 0) return false;
  const before = text[at - 1] ?? ' ';
  const after = text[at + word.length] ?? ' ';
  return (!/[\w.:-]/.test(before) && !/[\w.]/.test(after)) || hasWord(text.slice(at + 1), word);
}

function output(program: string, args: readonly string[]): string {
  const { exitCode, stdout } = runProgram(program, args, { timeoutMs: 10_000 });
  return exitCode === 0 ? stdout : '';
}
