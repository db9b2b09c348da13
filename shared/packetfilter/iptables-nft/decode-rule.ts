/**
 * Rules of iptables-nft read back as data. Decoding is generous and then proved: what was understood is encoded again, and
 * only if that gives the very bytes of the kernel's rule is it taken; anything else stays a unmanaged rule that nobody here rewrites.
 */
import {
  type Family,
  type Match,
  type Negatable,
  PROTOCOL_NAMES,
  type Rule,
  type Target,
} from '../ruleset.ts';
import { addressFromBytes, formatAddress } from '../../net/address.ts';
import {
  parseExpression as parse,
  sameExpressions,
  type RawExpression,
} from '../nftables/decode-expressions.ts';
import { attributeOf, attributesOf, encodeTree, textOf } from '../nftables/nlattr.ts';
import { CompareOp, MetaKey, PayloadBase, VerdictCode } from '../nftables/expressions.ts';
import { encodeRule, IP_PROTOCOL, type HeaderTest } from './encode-rule.ts';
import { decodeXtMatch, decodeXtTarget } from './decode-xtables.ts';

/** @param list the payload of NFTA_RULE_EXPRESSIONS */
export function decodeRule(family: Family, list: Buffer): Rule | undefined {
  const reader = new Reader(
    family,
    attributesOf(list).map(([, element]) => parse(element)),
  );
  const rule = reader.rule();
  if (rule === undefined) return undefined;
  const again = encodeRule(family, rule, reader.order);
  return again !== undefined && sameExpressions(encodeTree(again.expressions), list) ? rule : undefined;
}

/** The chain that a rule jumps or goes to, whatever else it holds. */
export function jumpTarget(list: Buffer): string | undefined {
  for (const [, element] of attributesOf(list)) {
    const { name, data } = parse(element);
    if (name !== 'immediate') continue;
    const { chain } = verdictOf(data);
    if (chain !== undefined) return chain;
  }
  return undefined;
}

function verdictOf(data: Buffer): { code: number | undefined; chain: string | undefined } {
  const inner = attributeOf(attributeOf(data, 2) ?? Buffer.alloc(0), 2) ?? Buffer.alloc(0);
  const chain = attributeOf(inner, 2);
  return {
    code: attributeOf(inner, 1)?.readInt32BE(),
    chain: chain === undefined ? undefined : textOf(chain),
  };
}

type Draft = { -readonly [Key in keyof Rule]?: Rule[Key] };

/** Walks the expressions of one rule from left to right. */
class Reader {
  readonly #family: Family;
  readonly #rest: RawExpression[];
  readonly #draft: Draft = {};
  readonly #matches: Match[] = [];
  /** As this rule has them: versions of iptables differ. */
  readonly order: HeaderTest[] = [];

  constructor(family: Family, expressions: RawExpression[]) {
    this.#family = family;
    this.#rest = expressions;
  }

  rule(): Rule | undefined {
    while (this.#rest.length > 0 && this.#rest[0]?.name !== 'counter') {
      if (!this.#one(this.#rest.shift())) return undefined;
    }
    this.#rest.shift();
    const target = this.#rest.length === 1 ? this.#target(this.#rest[0]) : undefined;
    if (target === undefined) return undefined;
    return { ...this.#draft, ...(this.#matches.length > 0 ? { matches: this.#matches } : {}), target };
  }

  #one(expression: RawExpression | undefined): boolean {
    if (expression === undefined) return false;
    if (expression.name === 'meta') return this.#meta(attributeOf(expression.data, 2)?.readUInt32BE());
    if (expression.name === 'payload') return this.#payload(expression.data);
    const match = expression.name === 'match' ? decodeXtMatch(expression.data) : undefined;
    if (match !== undefined) this.#matches.push(match);
    return match !== undefined;
  }

  #meta(key: number | undefined): boolean {
    if (key === MetaKey.mark) return this.#mark();
    const compared = this.#compared();
    if (compared === undefined) return false;
    const { value, negated } = compared;
    if (key === MetaKey.l4proto) return !negated && this.#protocol('l4proto', value[0]);
    const name: Negatable = {
      value: value.includes(0) ? textOf(value) : `${value.toString()}+`,
      ...(negated ? { negated } : {}),
    };
    if (key === MetaKey.iifname) this.#draft.inInterface = name;
    else if (key === MetaKey.oifname) this.#draft.outInterface = name;
    else return false;
    this.order.push(key === MetaKey.iifname ? 'iifname' : 'oifname');
    return true;
  }

  #protocol(test: HeaderTest, number: number | undefined): boolean {
    const protocol = PROTOCOL_NAMES.get(number ?? 0);
    if (protocol !== undefined) this.#draft.protocol = protocol;
    this.order.push(test);
    return protocol !== undefined;
  }

  #mark(): boolean {
    const mask =
      this.#rest[0]?.name === 'bitwise' ? valueAt(this.#rest.shift()?.data, 4)?.readUInt32LE() : 0xffffffff;
    const compared = this.#compared();
    if (compared === undefined || mask === undefined) return false;
    const { value, negated } = compared;
    this.#matches.push({ kind: 'mark', value: value.readUInt32LE(), mask, ...(negated ? { negated } : {}) });
    return true;
  }

  #payload(data: Buffer): boolean {
    const [base, offset, length] = [2, 3, 4].map((type) => attributeOf(data, type)?.readUInt32BE());
    if (base === PayloadBase.transport && offset === 2 && length === 2) return this.#port();
    if (base === PayloadBase.network && offset === IP_PROTOCOL && this.#family === 'ipv4') {
      const compared = this.#compared();
      return compared?.negated === false && this.#protocol('ipproto', compared.value[0]);
    }
    return base === PayloadBase.network && this.#address(offset ?? 0, length ?? 0);
  }

  #port(): boolean {
    const test = this.#rest.shift();
    const [from, to] = test?.name === 'range' ? [3, 4] : [3, 3];
    const first = valueAt(test?.data, from)?.readUInt16BE();
    const last = valueAt(test?.data, to)?.readUInt16BE();
    if (first === undefined || last === undefined) return false;
    this.#matches.push({ kind: 'port', destinationPort: { first, last } });
    return true;
  }

  #address(offset: number, length: number): boolean {
    const size = this.#family === 'ipv4' ? 4 : 16;
    const sides =
      this.#family === 'ipv4' ? { 12: 'source', 16: 'destination' } : { 8: 'source', 24: 'destination' };
    const side = (sides as Record<number, 'source' | 'destination'>)[offset];
    const mask = this.#rest[0]?.name === 'bitwise' ? valueAt(this.#rest.shift()?.data, 4) : undefined;
    const compared = this.#compared();
    if (side === undefined || compared === undefined || length > size) return false;
    const whole = Buffer.alloc(size);
    compared.value.copy(whole);
    const parsed = addressFromBytes(whole);
    if (parsed === undefined) return false;
    const value = `${formatAddress(parsed)}/${mask === undefined ? 8 * length : prefixOf(mask)}`;
    this.#draft[side] = compared.negated ? { value, negated: true } : { value };
    this.order.push(side === 'source' ? 'saddr' : 'daddr');
    return true;
  }

  #compared(): { value: Buffer; negated: boolean } | undefined {
    const test = this.#rest.shift();
    const value = test?.name === 'cmp' ? valueAt(test.data, 3) : undefined;
    if (test === undefined || value === undefined) return undefined;
    return { value, negated: attributeOf(test.data, 2)?.readUInt32BE() === CompareOp.neq };
  }

  #target(expression: RawExpression | undefined): Target | undefined {
    if (expression?.name === 'target') return decodeXtTarget(this.#family, expression.data);
    if (expression?.name !== 'immediate') return undefined;
    const { code, chain } = verdictOf(expression.data);
    if (code === VerdictCode.jump && chain !== undefined) return { kind: 'jump', chain };
    const kind = (['accept', 'drop', 'return'] as const).find((name) => VerdictCode[name] === code);
    return kind === undefined ? undefined : { kind };
  }
}

/** NFTA_DATA_VALUE in an attribute. */
function valueAt(data: Buffer | undefined, type: number): Buffer | undefined {
  const nested = data === undefined ? undefined : attributeOf(data, type);
  return nested === undefined ? undefined : attributeOf(nested, 1);
}

function prefixOf(mask: Buffer): number {
  return [...mask].reduce((bits, byte) => bits + byte.toString(2).replaceAll('0', '').length, 0);
}
