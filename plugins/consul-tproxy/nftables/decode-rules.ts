import { addressFromBytes, formatAddress } from '../../../shared/net/address.ts';
import {
  decodeExpressions,
  type DecodedExpression,
} from '../../../shared/packetfilter/nftables/decode-expressions.ts';
import {
  CompareOp,
  MetaKey,
  PayloadBase,
  VerdictCode,
} from '../../../shared/packetfilter/nftables/expressions.ts';
import { textOf } from '../../../shared/packetfilter/nftables/nlattr.ts';
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
  return new Reader(decodeExpressions(list)).read();
}

type Draft = { -readonly [Key in keyof Rule]?: Rule[Key] };
type Of<Kind extends DecodedExpression['kind']> = DecodedExpression & { kind: Kind };

/** Walks the expressions of one rule from left to right; each step consumes the expressions of one condition and returns whether it can decode them. */
class Reader {
  readonly #rest: DecodedExpression[];
  readonly #draft: Draft = {};
  readonly #matches: Match[] = [];
  #guard: Family | undefined;
  #packets = 0n;
  #bytes = 0n;

  constructor(expressions: DecodedExpression[]) {
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
    return ['immediate', 'verdict', 'reject', undefined].includes(this.#rest[0]?.kind);
  }

  /** The next expression, if it is of this kind. */
  #next<Kind extends DecodedExpression['kind']>(kind: Kind): Of<Kind> | undefined {
    return this.#rest[0]?.kind === kind ? (this.#rest.shift() as Of<Kind>) : undefined;
  }

  #condition(expression: DecodedExpression): boolean {
    switch (expression.kind) {
      case 'counter':
        this.#bytes = expression.bytes;
        this.#packets = expression.packets;
        return true;
      case 'meta':
        return this.#meta(expression.key);
      case 'payload':
        return this.#payload(expression);
      case 'ct':
        return expression.key === CT_STATE && this.#states();
      default:
        return false;
    }
  }

  #meta(key: number): boolean {
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
    const ordered = this.#next('byteorder') !== undefined;
    const uid = this.#between(4, (value) => (ordered ? value.readUInt32BE() : value.readUInt32LE()));
    if (uid !== undefined) this.#matches.push({ kind: 'owner', uid });
    return uid !== undefined;
  }

  #payload({ base, offset, length }: Of<'payload'>): boolean {
    if (base === PayloadBase.transport && offset === 2 && length === 2) {
      const destinationPort = this.#between(2, (value) => value.readUInt16BE());
      if (destinationPort !== undefined) this.#matches.push({ kind: 'port', destinationPort });
      return destinationPort !== undefined;
    }
    const size = base === PayloadBase.network ? DESTINATION_SIZES.get(offset) : undefined;
    return size !== undefined && this.#destination(size, length);
  }

  /** A prefix of whole bytes is loaded and compared as such, any other one masked. */
  #destination(size: number, length: number): boolean {
    const mask = this.#next('bitwise')?.mask;
    const value = this.#equals();
    if (value === undefined || value.length > size) return false;
    const address = addressFromBytes(Buffer.concat([value, Buffer.alloc(size - value.length)]));
    if (address === undefined) return false;
    const prefix = mask === undefined ? 8 * length : onesOf(mask);
    this.#draft.destination = { value: `${formatAddress(address)}/${prefix}` };
    return true;
  }

  #states(): boolean {
    const mask = this.#next('bitwise')?.mask;
    const compared = this.#next('cmp');
    if (mask?.length !== 4 || compared?.op !== CompareOp.neq) return false;
    const bits = mask.readUInt32LE();
    this.#matches.push({ kind: 'conntrack', states: STATES.filter((_, at) => (bits & (1 << at)) !== 0) });
    return true;
  }

  #equals(): Buffer | undefined {
    const test = this.#next('cmp');
    return test?.op === CompareOp.eq ? test.value : undefined;
  }

  /** One value of so many bytes, or a test for the lower and one for the upper bound. */
  #between(size: number, read: (value: Buffer) => number): { first: number; last: number } | undefined {
    const [from, to] = this.#bounds();
    return from?.length === size && to?.length === size ? { first: read(from), last: read(to) } : undefined;
  }

  #bounds(): readonly Buffer[] {
    const range = this.#next('range');
    if (range !== undefined) return [range.from, range.to];
    const test = this.#next('cmp');
    if (test?.op === CompareOp.eq) return [test.value, test.value];
    const upper = test?.op === CompareOp.gte ? this.#next('cmp') : undefined;
    return test !== undefined && upper?.op === CompareOp.lte ? [test.value, upper.value] : [];
  }

  #target(): Target | undefined {
    const reject = this.#next('reject');
    if (reject !== undefined) return rejectOf(reject.type, this.#draft.protocol);
    const verdict = this.#next('verdict');
    if (verdict !== undefined) return verdictOf(verdict);
    const values: Buffer[] = [];
    for (let one = this.#next('immediate'); one !== undefined; one = this.#next('immediate'))
      values.push(one.value);
    return natOf(this.#next('other')?.name, values);
  }
}

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

function rejectOf(type: number, protocol: Rule['protocol']): Target | undefined {
  if (type === 1) return { kind: 'reject', with: 'tcp-reset' };
  return protocol === 'udp' ? { kind: 'reject', with: 'icmp-port-unreachable' } : undefined;
}

function verdictOf({ code, chain }: Of<'verdict'>): Target | undefined {
  if (code === VerdictCode.jump && chain !== undefined) return { kind: 'jump', chain };
  const kind = (['accept', 'drop', 'return'] as const).find((name) => VerdictCode[name] === code);
  return kind === undefined ? undefined : { kind };
}

/** redir takes a port; nat an address and perhaps a port. */
function natOf(name: string | undefined, values: readonly Buffer[]): Target | undefined {
  const [first = Buffer.alloc(0), second] = values;
  if (name === 'redir' && first.length >= 2) return { kind: 'redirect', port: first.readUInt16BE() };
  const address = name === 'nat' ? addressFromBytes(first) : undefined;
  if (address === undefined) return undefined;
  const text = formatAddress(address);
  if (second === undefined) return { kind: 'dnat', to: text };
  if (second.length < 2) return undefined;
  return { kind: 'dnat', to: `${address.family === 'ipv6' ? `[${text}]` : text}:${second.readUInt16BE()}` };
}

function onesOf(mask: Buffer): number {
  return [...mask].reduce((bits, byte) => bits + byte.toString(2).replaceAll('0', '').length, 0);
}
