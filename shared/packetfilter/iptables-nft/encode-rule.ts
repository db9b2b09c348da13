/**
 * Rules in the form in which iptables-nft (1.8.9 and later) writes them into nf_tables: what it can express natively as
 * expressions, the rest as xtables matches and targets. Only this form can be listed, checked and deleted by `iptables`;
 * one foreign expression in a table of its own makes `iptables -S` fail for everybody.
 */
import * as expr from '../nftables/expressions.ts';
import { address, be16, host32 } from '../nftables/encode.ts';
import { protocolNumber } from '../nftables/fields.ts';
import type { RuleBody } from '../nftables/messages.ts';
import type { Family, Match, Negatable, PortRange, Rule, Target } from '../ruleset.ts';
import { encodeXtMatch, encodeXtTarget } from './xtables.ts';

/** @returns undefined for a rule that holds an operator's own words: those only iptables can read */
export function encodeRule(family: Family, rule: Rule): RuleBody | undefined {
  const matches: expr.Expression[] = [];
  for (const match of rule.matches ?? []) {
    const expressions = encodeMatch(rule, match);
    if (expressions === undefined) return undefined;
    matches.push(...expressions);
  }
  const { protocol } = rule;
  return {
    expressions: [
      ...interfaceTest(expr.MetaKey.iifname, rule.inInterface),
      ...interfaceTest(expr.MetaKey.oifname, rule.outInterface),
      ...(protocol === undefined ? [] : protocolTest(protocolNumber(protocol))),
      ...addressTest('saddr', rule.source),
      ...addressTest('daddr', rule.destination),
      ...matches,
      expr.counter(),
      encodeTarget(family, rule.target),
    ],
    // What xt_check_match and _target hold against a match's `.proto`.
    compat: protocol === undefined ? undefined : { protocol: protocolNumber(protocol), flags: 0 },
  };
}

function protocolTest(protocol: number): expr.Expression[] {
  return [expr.metaLoad(expr.MetaKey.l4proto), expr.compare(Uint8Array.of(protocol))];
}

/** The name with its NUL: shorter than nft's 16 bytes, but longer than a prefix match (`br+`). */
function interfaceTest(key: number, tested: Negatable | undefined): expr.Expression[] {
  if (tested === undefined) return [];
  const name = tested.value.endsWith('+') ? tested.value.slice(0, -1) : `${tested.value}\0`;
  return [expr.metaLoad(key), expr.compare(Buffer.from(name), equality(tested.negated))];
}

function addressTest(side: 'saddr' | 'daddr', tested: Negatable | undefined): expr.Expression[] {
  return tested === undefined ? [] : address(side, tested.value, tested.negated === true);
}

function encodeMatch(rule: Rule, match: Match): expr.Expression[] | undefined {
  switch (match.kind) {
    case 'port':
      if (rule.protocol === 'sctp') return [encodeXtMatch(match)];
      return [expr.payloadLoad(expr.PayloadBase.transport, 2, 2), portTest(match.destinationPort)];
    case 'mark':
      return markTest(match.value, match.mask, match.negated);
    case 'words':
      return undefined;
    default:
      return [encodeXtMatch(match)];
  }
}

function portTest({ first, last }: PortRange): expr.Expression {
  return first === last ? expr.compare(be16(first)) : expr.range(be16(first), be16(last));
}

function markTest(value: number, mask: number, negated: boolean | undefined): expr.Expression[] {
  const masked = mask === 0xffffffff ? [] : [expr.bitwise(host32(mask))];
  return [expr.metaLoad(expr.MetaKey.mark), ...masked, expr.compare(host32(value), equality(negated))];
}

function encodeTarget(family: Family, target: Target): expr.Expression {
  switch (target.kind) {
    case 'jump':
      return expr.verdict(expr.VerdictCode.jump, target.chain);
    case 'accept':
    case 'drop':
    case 'return':
      return expr.verdict(expr.VerdictCode[target.kind]);
    case 'masquerade':
      return encodeXtTarget(family, { kind: 'masquerade' });
    default:
      return encodeXtTarget(family, target);
  }
}

function equality(negated: boolean | undefined): number {
  return negated === true ? expr.CompareOp.neq : expr.CompareOp.eq;
}
