/**
 * Decodes rules of iptables-nft. A decoded rule is encoded again and taken only if that gives the kernel's bytes; any other rule is unmanaged
 * and never rewritten.
 */
import { addressFromBytes, formatAddress } from '../../net/address.ts';
import {
  decodeExpressions,
  sameExpressions,
  type DecodedExpression,
} from '../nftables/decode-expressions.ts';
import { CompareOp, MetaKey, PayloadBase, VerdictCode } from '../nftables/expressions.ts';
import { encodeTree, textOf } from '../nftables/nlattr.ts';
import {
  PROTOCOL_NAMES,
  type Family,
  type Match,
  type Negatable,
  type Rule,
  type Target,
} from '../ruleset.ts';
import { decodeXtMatch } from '../xtables/matches.ts';
import { decodeXtTarget } from '../xtables/targets.ts';
import { encodeRule, IP_PROTOCOL, type HeaderTest } from './encode-rule.ts';

/** @param list the payload of NFTA_RULE_EXPRESSIONS */
export function decodeRule(family: Family, list: Buffer): Rule | undefined {
  const reader = new Reader(family, decodeExpressions(list));
  const rule = reader.rule();
  if (rule === undefined) return undefined;
  const again = encodeRule(family, rule, reader);
  return again !== undefined && sameExpressions(encodeTree(again.expressions), list) ? rule : undefined;
}

type Draft = { -readonly [Key in keyof Rule]?: Rule[Key] };

/** Walks the expressions of one rule from left to right. */
class Reader {
  readonly #family: Family;
  readonly #rest: DecodedExpression[];
  readonly #draft: Draft = {};
  readonly #matches: Match[] = [];
  /** The order of this rule's tests: versions of iptables differ. */
  readonly order: HeaderTest[] = [];
  /** Whether a port or a mark is a native expression. */
  native = false;

  constructor(family: Family, expressions: DecodedExpression[]) {
    this.#family = family;
    this.#rest = expressions;
  }

  rule(): Rule | undefined {
    while (this.#rest.length > 0 && this.#rest[0]?.kind !== 'counter') {
      if (!this.#test(this.#rest.shift())) return undefined;
    }
    this.#rest.shift();
    const target = this.#rest.length === 1 ? this.#target(this.#rest[0]) : undefined;
    if (target === undefined) return undefined;
    return { ...this.#draft, ...(this.#matches.length > 0 ? { matches: this.#matches } : {}), target };
  }

  #test(expression: DecodedExpression | undefined): boolean {
    switch (expression?.kind) {
      case 'meta':
        return this.#meta(expression.key);
      case 'payload':
        return this.#payload(expression);
      case 'match': {
        const match = decodeXtMatch(expression.name, expression.info);
        if (match !== undefined) this.#matches.push(match);
        return match !== undefined;
      }
      default:
        return false;
    }
  }

  #meta(key: number): boolean {
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
    this.native = true;
    const mask = this.#mask();
    const compared = this.#compared();
    if (compared?.value.length !== 4 || (mask !== undefined && mask.length !== 4)) return false;
    const { value, negated } = compared;
    this.#matches.push({
      kind: 'mark',
      value: value.readUInt32LE(),
      mask: mask?.readUInt32LE() ?? 0xffffffff,
      ...(negated ? { negated } : {}),
    });
    return true;
  }

  #payload({ base, offset, length }: DecodedExpression & { kind: 'payload' }): boolean {
    if (base === PayloadBase.transport && offset === 2 && length === 2) return this.#port();
    if (base === PayloadBase.network && offset === IP_PROTOCOL && this.#family === 'ipv4') {
      const compared = this.#compared();
      return compared?.negated === false && this.#protocol('ipproto', compared.value[0]);
    }
    return base === PayloadBase.network && this.#address(offset, length);
  }

  #port(): boolean {
    this.native = true;
    const test = this.#rest.shift();
    const [from, to] =
      test?.kind === 'range'
        ? [test.from, test.to]
        : test?.kind === 'cmp'
          ? [test.value, test.value]
          : [undefined, undefined];
    if (from?.length !== 2 || to?.length !== 2) return false;
    this.#matches.push({
      kind: 'port',
      destinationPort: { first: from.readUInt16BE(), last: to.readUInt16BE() },
    });
    return true;
  }

  #address(offset: number, length: number): boolean {
    const size = this.#family === 'ipv4' ? 4 : 16;
    const sides =
      this.#family === 'ipv4' ? { 12: 'source', 16: 'destination' } : { 8: 'source', 24: 'destination' };
    const side = (sides as Record<number, 'source' | 'destination'>)[offset];
    const mask = this.#mask();
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

  #mask(): Buffer | undefined {
    const [next] = this.#rest;
    if (next?.kind !== 'bitwise') return undefined;
    this.#rest.shift();
    return next.mask;
  }

  #compared(): { value: Buffer; negated: boolean } | undefined {
    const test = this.#rest.shift();
    return test?.kind === 'cmp' ? { value: test.value, negated: test.op === CompareOp.neq } : undefined;
  }

  #target(expression: DecodedExpression | undefined): Target | undefined {
    if (expression?.kind === 'target') return decodeXtTarget(this.#family, expression.name, expression.info);
    if (expression?.kind !== 'verdict') return undefined;
    const { code, chain } = expression;
    if (code === VerdictCode.jump && chain !== undefined) return { kind: 'jump', chain };
    const kind = (['accept', 'drop', 'return'] as const).find((name) => VerdictCode[name] === code);
    return kind === undefined ? undefined : { kind };
  }
}

function prefixOf(mask: Buffer): number {
  return [...mask].reduce((bits, byte) => bits + byte.toString(2).replaceAll('0', '').length, 0);
}
