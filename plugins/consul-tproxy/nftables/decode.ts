import { addressFromBytes, formatAddress } from '../../../shared/net/address.ts';
import { attributeOf, attributesOf, textOf } from '../../../shared/packetfilter/nftables/nlattr.ts';
import { MetaKey, PayloadBase, VerdictCode } from '../../../shared/packetfilter/nftables/expressions.ts';
import type { Family, Match, Rule, Target } from '../../../shared/packetfilter/ruleset.ts';

/** A rule of the nftables backend as read from the kernel. */
export interface DecodedRule {
  readonly rule: Rule;
  /** The family that a rule of a base chain tests first; undefined when it takes packets of both. */
  readonly guard: Family | undefined;
  readonly packets: bigint;
  readonly bytes: bigint;
}

/**
 * The inverse of plan.ts and the encoder; also reads what nft(8) makes of the same rules.
 * @param list the payload of NFTA_RULE_EXPRESSIONS
 * @returns undefined for any other rule
 */
export function decodeNftRule(list: Buffer): DecodedRule | undefined {
  return new Reader(attributesOf(list).map(([, element]) => parse(element))).read();
}

/** NFTA_LIST_ELEM { NFTA_EXPR_NAME (1), NFTA_EXPR_DATA (2) } */
interface Expression {
  readonly name: string;
  readonly data: Buffer;
}

const NONE = Buffer.alloc(0);

function parse(element: Buffer): Expression {
  return { name: textOf(attributeOf(element, 1) ?? NONE), data: attributeOf(element, 2) ?? NONE };
}

type Draft = { -readonly [Key in keyof Rule]?: Rule[Key] };

/** Walks the expressions of one rule from left to right; each step consumes the expressions of one condition and returns whether it can decode them. */
class Reader {
  readonly #rest: Expression[];
  readonly #draft: Draft = {};
  readonly #matches: Match[] = [];
  #guard: Family | undefined;
  #packets = 0n;
  #bytes = 0n;

  constructor(expressions: Expression[]) {
    this.#rest = expressions;
  }

  read(): DecodedRule | undefined {
    while (!this.#atTarget()) {
      const expression = this.#rest.shift();
      if (expression === undefined || !this.#condition(expression)) return undefined;
    }
    const target = this.#target();
    if (target === undefined || this.#rest.length > 0) return undefined;
    const matches = this.#matches.length > 0 ? { matches: this.#matches } : {};
    return {
      rule: { ...this.#draft, ...matches, target },
      guard: this.#guard,
      packets: this.#packets,
      bytes: this.#bytes,
    };
  }

  #atTarget(): boolean {
    return ['immediate', 'reject', undefined].includes(this.#rest[0]?.name);
  }

  #condition({ name, data }: Expression): boolean {
    switch (name) {
      case 'counter':
        this.#bytes = attributeOf(data, 1)?.readBigUInt64BE() ?? 0n;
        this.#packets = attributeOf(data, 2)?.readBigUInt64BE() ?? 0n;
        return true;
      case 'meta':
        return this.#meta(numberAt(data, 2));
      case 'payload':
        return this.#payload(numberAt(data, 2), numberAt(data, 3), numberAt(data, 4));
      case 'ct':
        return numberAt(data, 2) === CT_STATE && this.#states();
      default:
        return false;
    }
  }

  #meta(key: number | undefined): boolean {
    if (key === MetaKey.skuid) return this.#user();
    const value = this.#equals();
    if (value === undefined) return false;
    if (key === MetaKey.nfproto) this.#guard = FAMILIES.get(value[0] ?? 0);
    else if (key === MetaKey.iifname) this.#draft.inInterface = { value: textOf(value) };
    else if (key === MetaKey.oifname) this.#draft.outInterface = { value: textOf(value) };
    else if (key === MetaKey.l4proto) return this.#protocol(PROTOCOLS.get(value[0] ?? 0));
    else return false;
    return true;
  }

  #protocol(protocol: Rule['protocol']): boolean {
    if (protocol !== undefined) this.#draft.protocol = protocol;
    return protocol !== undefined;
  }

  #user(): boolean {
    const ordered = this.#rest[0]?.name === 'byteorder';
    if (ordered) this.#rest.shift();
    const bounds = this.#between((value) => (ordered ? value.readUInt32BE() : value.readUInt32LE()));
    if (bounds !== undefined) this.#matches.push({ kind: 'owner', uid: bounds });
    return bounds !== undefined;
  }

  #payload(base: number | undefined, offset: number | undefined, length: number | undefined): boolean {
    if (base === PayloadBase.transport && offset === 2 && length === 2) {
      const destinationPort = this.#between((value) => value.readUInt16BE());
      if (destinationPort !== undefined) this.#matches.push({ kind: 'port', destinationPort });
      return destinationPort !== undefined;
    }
    const size = base === PayloadBase.network ? DESTINATION_SIZES.get(offset ?? 0) : undefined;
    return size !== undefined && length !== undefined && this.#destination(size, length);
  }

  /** A prefix of whole bytes is loaded and compared as such, any other one masked. */
  #destination(size: number, length: number): boolean {
    const mask = this.#rest[0]?.name === 'bitwise' ? valueAt(this.#rest.shift()?.data, 4) : undefined;
    const value = this.#equals();
    if (value === undefined || value.length > size) return false;
    const address = addressFromBytes(Buffer.concat([value, Buffer.alloc(size - value.length)]));
    if (address === undefined) return false;
    const prefix = mask === undefined ? 8 * length : onesOf(mask);
    this.#draft.destination = { value: `${formatAddress(address)}/${prefix}` };
    return true;
  }

  #states(): boolean {
    const mask = valueAt(this.#rest.shift()?.data, 4);
    const compared = this.#rest.shift();
    if (mask === undefined || compared?.name !== 'cmp' || numberAt(compared.data, 2) !== NOT_EQUAL)
      return false;
    const bits = mask.readUInt32LE();
    this.#matches.push({ kind: 'conntrack', states: STATES.filter((_, at) => (bits & (1 << at)) !== 0) });
    return true;
  }

  #equals(): Buffer | undefined {
    const test = this.#rest.shift();
    return test?.name === 'cmp' && numberAt(test.data, 2) === EQUAL ? valueAt(test.data, 3) : undefined;
  }

  /** One value, or a test for the lower and one for the upper bound. */
  #between(read: (value: Buffer) => number): { first: number; last: number } | undefined {
    const test = this.#rest.shift();
    if (test?.name === 'range') return bounds(valueAt(test.data, 3), valueAt(test.data, 4), read);
    if (test?.name !== 'cmp') return undefined;
    const value = valueAt(test.data, 3);
    if (numberAt(test.data, 2) === EQUAL) return bounds(value, value, read);
    if (numberAt(test.data, 2) !== AT_LEAST || this.#rest[0]?.name !== 'cmp') return undefined;
    const upper = this.#rest.shift();
    return numberAt(upper?.data, 2) === AT_MOST ? bounds(value, valueAt(upper?.data, 3), read) : undefined;
  }

  #target(): Target | undefined {
    const first = this.#rest.shift();
    if (first?.name === 'reject') return rejectOf(numberAt(first.data, 1), this.#draft.protocol);
    if (first?.name !== 'immediate') return undefined;
    const verdict = attributeOf(attributeOf(first.data, 2) ?? NONE, 2);
    if (verdict !== undefined) return verdictOf(verdict);
    const values = [valueAt(first.data, 2) ?? NONE];
    while (this.#rest[0]?.name === 'immediate') values.push(valueAt(this.#rest.shift()?.data, 2) ?? NONE);
    return natOf(this.#rest.shift()?.name, values);
  }
}

const EQUAL = 0;
const NOT_EQUAL = 1;
const AT_MOST = 3;
const AT_LEAST = 5;
/** NFT_CT_STATE; bit numbers of the states. */
const CT_STATE = 0;
const STATES = ['INVALID', 'ESTABLISHED', 'RELATED', 'NEW'] as const;
/** NFPROTO_* and IPPROTO_* */
const FAMILIES: ReadonlyMap<number, Family> = new Map([
  [2, 'ipv4'],
  [10, 'ipv6'],
]);
const PROTOCOLS = new Map([
  [6, 'tcp'],
  [17, 'udp'],
] as const) as ReadonlyMap<number, 'tcp' | 'udp'>;
/** Where the destination stands in the header, and how long it is: that tells the family. */
const DESTINATION_SIZES: ReadonlyMap<number, number> = new Map([
  [16, 4],
  [24, 16],
]);

function rejectOf(type: number | undefined, protocol: Rule['protocol']): Target | undefined {
  if (type === 1) return { kind: 'reject', with: 'tcp-reset' };
  return protocol === 'udp' ? { kind: 'reject', with: 'icmp-port-unreachable' } : undefined;
}

/** NFTA_VERDICT_CODE (1), NFTA_VERDICT_CHAIN (2) */
function verdictOf(verdict: Buffer): Target | undefined {
  const code = attributeOf(verdict, 1)?.readInt32BE();
  const chain = attributeOf(verdict, 2);
  if (code === VerdictCode.jump && chain !== undefined) return { kind: 'jump', chain: textOf(chain) };
  const kind = (['accept', 'drop', 'return'] as const).find((name) => VerdictCode[name] === code);
  return kind === undefined ? undefined : { kind };
}

/** redir takes a port; nat an address and perhaps a port. */
function natOf(name: string | undefined, values: readonly Buffer[]): Target | undefined {
  const [first = NONE, second] = values;
  if (name === 'redir' && first.length >= 2) return { kind: 'redirect', port: first.readUInt16BE() };
  const address = name === 'nat' ? addressFromBytes(first) : undefined;
  if (address === undefined) return undefined;
  const text = formatAddress(address);
  if (second === undefined) return { kind: 'dnat', to: text };
  return { kind: 'dnat', to: `${address.family === 'ipv6' ? `[${text}]` : text}:${second.readUInt16BE()}` };
}

function bounds(
  from: Buffer | undefined,
  to: Buffer | undefined,
  read: (value: Buffer) => number,
): { first: number; last: number } | undefined {
  return from === undefined || to === undefined ? undefined : { first: read(from), last: read(to) };
}

function numberAt(data: Buffer | undefined, type: number): number | undefined {
  return data === undefined ? undefined : attributeOf(data, type)?.readUInt32BE();
}

/** NFTA_DATA_VALUE (1) in an attribute. */
function valueAt(data: Buffer | undefined, type: number): Buffer | undefined {
  const nested = data === undefined ? undefined : attributeOf(data, type);
  return nested === undefined ? undefined : attributeOf(nested, 1);
}

function onesOf(mask: Buffer): number {
  return [...mask].reduce((bits, byte) => bits + byte.toString(2).replaceAll('0', '').length, 0);
}
