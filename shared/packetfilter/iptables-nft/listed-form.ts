/** How the kernel lists rules: a rule that was decoded once is found again without decoding it, and written again without encoding it. */
import { EXPR } from '../nftables/expressions.ts';
import { attributeOf, attributesOf, textAt } from '../nftables/nlattr.ts';
import type { Family, Rule } from '../ruleset.ts';

/** @param list the payload of NFTA_RULE_EXPRESSIONS of a rule that equals this one */
export function keepListed(family: Family, rule: Rule, list: Buffer): void {
  KNOWN[family].set(rule, withoutCounts(Buffer.from(list)));
}

/** Whether the kernel listed the rule with the same bytes before; counters are ignored. */
export function isListedAs(family: Family, rule: Rule, list: Buffer): boolean {
  const known = KNOWN[family].get(rule);
  if (known === undefined) return false;
  const { expressions, from, to } = known;
  const { length } = expressions;
  return (
    list.length === length &&
    list.compare(expressions, 0, from, 0, from) === 0 &&
    list.compare(expressions, to, length, to, length) === 0
  );
}

/** The rule's expressions with counters at zero; undefined if the kernel has not listed it. */
export function listedExpressions(family: Family, rule: Rule): Uint8Array | undefined {
  return KNOWN[family].get(rule)?.expressions;
}

interface ListedForm {
  readonly expressions: Buffer;
  /** Where the counter's values are. */
  readonly from: number;
  readonly to: number;
}

/** Rules of both families may be the same object, and their targets have different bytes. */
const KNOWN: Readonly<Record<Family, WeakMap<Rule, ListedForm>>> = {
  ipv4: new WeakMap(),
  ipv6: new WeakMap(),
};

/** @param expressions changed */
function withoutCounts(expressions: Buffer): ListedForm {
  const elements = attributesOf(expressions).map(([, element]) => element);
  const counter = elements.find((element) => textAt(element, EXPR.name) === 'counter');
  const values = counter === undefined ? undefined : attributeOf(counter, EXPR.data);
  if (values === undefined) return { expressions, from: expressions.length, to: expressions.length };
  for (const [, value] of attributesOf(values)) value.fill(0);
  const from = values.byteOffset - expressions.byteOffset;
  return { expressions, from, to: from + values.length };
}
