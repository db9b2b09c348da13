import { isUnmanaged } from '../compare.ts';
import type { Match, Negatable, PortRange, Rule, TableState, UnmanagedRule } from '../ruleset.ts';
import { containsAddress, parseAddress, parseCidr } from '../../net/address.ts';
import type { ChainVerdict } from './verdict.ts';
import type { KnownPacket, Ternary } from './packet.ts';

/** How a packet leaves a chain or a rule, and what dropped it. */
type End = 'accepted' | 'dropped' | 'passed';

/**
 * What chain FORWARD of an iptables table does with a packet, by its rules as data: for iptables-legacy, whose rules are no expressions.
 * Rules that are not understood make the answer `unclear`, except those that only log or mark.
 * @returns `by`: the rule as iptables-save prints it, or the policy; of a dropped packet
 */
export function followForward(
  { chains, policies }: TableState,
  packet: KnownPacket,
  textOf: (rule: Rule | UnmanagedRule) => string,
): { readonly verdict: ChainVerdict; readonly by: string | undefined } {
  let rulesLeft = MOST_RULES;
  let by: string | undefined;

  const walk = (chain: string, depth: number): Set<End> => {
    const ends = new Set<End>();
    for (const rule of chains.get(chain) ?? []) {
      if (--rulesLeft < 0 || depth > DEEPEST) return new Set(['accepted', 'dropped', 'passed']);
      const matches = isUnmanaged(rule) ? 'maybe' : matchesRule(rule, packet);
      if (matches === 'no') continue;
      const { ends: own, continues } = effect(rule, depth);
      if (own.includes('dropped')) by ??= `rule "-A ${chain} ${textOf(rule)}"`;
      for (const end of own) ends.add(end);
      if (matches === 'yes' && !continues) return ends;
    }
    return ends.add('passed');
  };

  const effect = (
    rule: Rule | UnmanagedRule,
    depth: number,
  ): { readonly ends: readonly End[]; readonly continues: boolean } => {
    if (isUnmanaged(rule)) {
      if (HARMLESS_TARGET.test(rule.unmanaged)) return { ends: [], continues: true };
      return { ends: ['accepted', 'dropped', 'passed'], continues: true };
    }
    switch (rule.target.kind) {
      case 'accept':
        return { ends: ['accepted'], continues: false };
      case 'drop':
      case 'reject':
        return { ends: ['dropped'], continues: false };
      case 'return':
        return { ends: ['passed'], continues: false };
      case 'jump': {
        const below = [...walk(rule.target.chain, depth + 1)];
        return { ends: below.filter((end) => end !== 'passed'), continues: below.includes('passed') };
      }
      default:
        return { ends: [], continues: true };
    }
  };

  const ends = walk('FORWARD', 0);
  if (ends.delete('passed')) {
    const dropped = policies.get('FORWARD') === 'drop';
    ends.add(dropped ? 'dropped' : 'accepted');
    if (dropped) by ??= 'policy drop';
  }
  const [only] = ends;
  const verdict = ends.size === 1 && only !== undefined && only !== 'passed' ? only : 'unclear';
  return { verdict, by: verdict === 'dropped' ? by : undefined };
}

const MOST_RULES = 5_000;
const DEEPEST = 16;
const HARMLESS_TARGET = /-j (?:LOG|NFLOG|ULOG|MARK|CONNMARK|TCPMSS|CT|CLASSIFY)\b/;

function matchesRule(rule: Rule, packet: KnownPacket): Ternary {
  return all([
    address(rule.source, packet.source),
    address(rule.destination, packet.destination),
    interfaceName(rule.inInterface, packet.inInterface),
    interfaceName(rule.outInterface, packet.outInterface),
    rule.protocol === undefined ? 'yes' : known(packet.protocol, (own) => own === rule.protocol),
    ...(rule.matches ?? []).map((match) => matchesMatch(match, packet)),
  ]);
}

function matchesMatch(match: Match, packet: KnownPacket): Ternary {
  switch (match.kind) {
    case 'comment':
      return 'yes';
    case 'conntrack':
      return match.states.includes(packet.state === 'new' ? 'NEW' : 'ESTABLISHED') ? 'yes' : 'no';
    case 'port':
      return inRanges([match.destinationPort], packet.destinationPort);
    case 'multiport':
      return inRanges(match.destinationPorts, packet.destinationPort);
    default:
      return 'maybe';
  }
}

function inRanges(ranges: readonly PortRange[], port: number | undefined): Ternary {
  return known(port, (own) => ranges.some(({ first, last }) => first <= own && own <= last));
}

function address(tested: Negatable | undefined, value: string | undefined): Ternary {
  const cidr = tested === undefined ? undefined : parseCidr(tested.value);
  if (tested === undefined) return 'yes';
  return negated(
    tested,
    known(value === undefined ? undefined : parseAddress(value), (own) =>
      cidr === undefined ? false : containsAddress(cidr, own),
    ),
  );
}

function interfaceName(tested: Negatable | undefined, name: string | undefined): Ternary {
  if (tested === undefined) return 'yes';
  const { value } = tested;
  return negated(
    tested,
    known(name, (own) => (value.endsWith('+') ? own.startsWith(value.slice(0, -1)) : own === value)),
  );
}

function negated(tested: Negatable, matches: Ternary): Ternary {
  if (tested.negated !== true || matches === 'maybe') return matches;
  return matches === 'yes' ? 'no' : 'yes';
}

function known<T>(value: T | undefined, test: (value: T) => boolean): Ternary {
  return value === undefined ? 'maybe' : test(value) ? 'yes' : 'no';
}

function all(tests: readonly Ternary[]): Ternary {
  return tests.includes('no') ? 'no' : tests.includes('maybe') ? 'maybe' : 'yes';
}
