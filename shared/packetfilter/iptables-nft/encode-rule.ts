/**
 * Rules in the format of iptables-nft: native expressions where every version uses them, else xtables matches and targets. `iptables` can list,
 * check and delete only rules in this format; one other expression in its tables makes `iptables -S` fail.
 */
import * as expr from '../nftables/expressions.ts';
import { address, be16, host32, protocolNumber } from '../nftables/encode.ts';
import type { RuleBody } from '../nftables/messages.ts';
import type { Family, Match, Negatable, PortRange, Rule, Target } from '../ruleset.ts';
import { encodeXtMatch } from '../xtables/matches.ts';
import { encodeXtTarget } from '../xtables/targets.ts';

/**
 * What a rule tests of a packet's headers, in the order of its tests; `ipproto` is the protocol as the byte of the IPv4 header, `l4proto`
 * as what the kernel found.
 */
export type HeaderTest = 'iifname' | 'oifname' | 'l4proto' | 'ipproto' | 'saddr' | 'daddr';

/**
 * The order of iptables 1.8.9. 1.8.11 writes saddr, daddr, iifname, oifname, and last the protocol, for IPv4 as `ipproto`; each
 * version lists, checks and deletes what the other wrote.
 */
const ORDER: readonly HeaderTest[] = ['iifname', 'oifname', 'l4proto', 'saddr', 'daddr'];

/** How a version of iptables writes a rule. */
export interface RuleForm {
  readonly order: readonly HeaderTest[];
  /**
   * Ports of tcp and udp, and marks, as native expressions: since 1.8.8. 1.8.7 lists such rules without the test, or refuses the whole table,
   * while every version reads xtables matches.
   */
  readonly native: boolean;
}

/**
 * @param form of another version's rule, to get the bytes that the rule was decoded from
 * @returns undefined for a rule with raw arguments, which only iptables can parse
 */
export function encodeRule(
  family: Family,
  rule: Rule,
  { order, native }: RuleForm = { order: ORDER, native: false },
): RuleBody<readonly expr.Expression[]> | undefined {
  const matches: expr.Expression[] = [];
  for (const match of rule.matches ?? []) {
    const expressions = encodeMatch(rule, match, native);
    if (expressions === undefined) return undefined;
    matches.push(...expressions);
  }
  return {
    expressions: [
      ...order.flatMap((test) => headerTest(rule, test)),
      ...matches,
      expr.counter(),
      encodeTarget(family, rule.target),
    ],
    compat: compatOf(rule),
  };
}

/** xt_check_match and xt_check_target compare it with the protocol that a match needs. */
export function compatOf({ protocol }: Rule): RuleBody['compat'] {
  return protocol === undefined ? undefined : { protocol: protocolNumber(protocol), flags: 0 };
}

/** Empty if the rule does not have this test. */
function headerTest(rule: Rule, test: HeaderTest): expr.Expression[] {
  switch (test) {
    case 'iifname':
      return interfaceTest(expr.MetaKey.iifname, rule.inInterface);
    case 'oifname':
      return interfaceTest(expr.MetaKey.oifname, rule.outInterface);
    case 'saddr':
      return addressTest('saddr', rule.source);
    case 'daddr':
      return addressTest('daddr', rule.destination);
    case 'l4proto':
      return protocolTest(rule.protocol, expr.metaLoad(expr.MetaKey.l4proto));
    case 'ipproto':
      return protocolTest(rule.protocol, expr.payloadLoad(expr.PayloadBase.network, IP_PROTOCOL, 1));
  }
}

/** Offset of `protocol` in struct iphdr. */
export const IP_PROTOCOL = 9;

function protocolTest(protocol: Rule['protocol'], load: expr.Expression): expr.Expression[] {
  if (protocol === undefined) return [];
  return [load, expr.compare(Uint8Array.of(protocolNumber(protocol)))];
}

/** A name with its NUL, where nft compares 16 bytes; a prefix (`br+`) without. */
function interfaceTest(key: number, tested: Negatable | undefined): expr.Expression[] {
  if (tested === undefined) return [];
  const name = tested.value.endsWith('+') ? tested.value.slice(0, -1) : `${tested.value}\0`;
  return [expr.metaLoad(key), expr.compare(Buffer.from(name), equality(tested.negated))];
}

function addressTest(side: 'saddr' | 'daddr', tested: Negatable | undefined): expr.Expression[] {
  return tested === undefined ? [] : address(side, tested.value, tested.negated === true);
}

function encodeMatch({ protocol }: Rule, match: Match, native: boolean): expr.Expression[] | undefined {
  if (match.kind === 'rawArgs') return undefined;
  if (native && match.kind === 'port' && protocol !== 'sctp')
    return [expr.payloadLoad(expr.PayloadBase.transport, 2, 2), portTest(match.destinationPort)];
  if (native && match.kind === 'mark') return markTest(match.value, match.mask, match.negated);
  const { name, revision, info } = encodeXtMatch(match, protocol);
  return [expr.xtMatch(name, revision, info)];
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
    default: {
      const { name, revision, info } = encodeXtTarget(family, target);
      return expr.xtTarget(name, revision, info);
    }
  }
}

function equality(negated: boolean | undefined): number {
  return negated === true ? expr.CompareOp.neq : expr.CompareOp.eq;
}
