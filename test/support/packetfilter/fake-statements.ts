/** Rules of FakeNftables as the text that `nft -n -s list` prints. */
import { addressFromBytes, formatAddress } from '../../../shared/net/address.ts';
import {
  decodeExpression,
  type DecodedExpression,
} from '../../../shared/packetfilter/nftables/decode-expressions.ts';
import { CompareOp, NAT, REDIR } from '../../../shared/packetfilter/nftables/expressions.ts';
import { attributeOf, attributesOf } from '../../../shared/packetfilter/nftables/nlattr.ts';
import { commentOf } from '../../../shared/packetfilter/nftables/reader.ts';
import { PROTOCOL_NAMES } from '../../../shared/packetfilter/ruleset.ts';
import type { FakeRule, FakeTable } from './fake-nftables.ts';

export function ruleText(table: FakeTable, rule: FakeRule): string {
  const comment = commentOf(rule.userdata);
  const statements = new Statements(table).of(rule.expressions);
  return [...statements, ...(comment === undefined ? [] : [`comment "${comment}"`])].join(' ');
}

/** What a register holds: how nft names it, and how its values are written. */
interface Loaded {
  readonly text: string;
  readonly value: (bytes: Buffer) => string;
}

/** Walks one rule from left to right. */
class Statements {
  readonly #table: FakeTable;
  readonly #registers = new Map<number, Loaded>();
  readonly #immediates = new Map<number, Buffer>();
  readonly #out: string[] = [];
  #protocol: string | undefined;
  #network: 'ip' | 'ip6';
  #pending: { readonly text: string; readonly of: 'network' | 'transport' } | undefined;
  #mask: { readonly mask: Buffer; readonly xor: Buffer } | undefined;
  #from: string | undefined;

  constructor(table: FakeTable) {
    this.#table = table;
    this.#network = table.family === 10 ? 'ip6' : 'ip';
  }

  of(expressions: Buffer): string[] {
    for (const [, element] of attributesOf(expressions)) this.#take(decodeExpression(element), element);
    this.#flush();
    return this.#out;
  }

  /** A protocol test is left out when what follows implies it. */
  #flush(implied?: 'network' | 'transport'): void {
    if (this.#pending !== undefined && this.#pending.of !== implied) this.#out.push(this.#pending.text);
    this.#pending = undefined;
  }

  #say(text: string): void {
    this.#flush();
    this.#out.push(text);
  }

  #take(one: DecodedExpression, element: Buffer): void {
    switch (one.kind) {
      case 'meta':
        if (one.register === undefined) this.#say(`meta mark set meta mark | ${this.#bits(this.#mask?.xor)}`);
        else this.#registers.set(one.register, META[one.key] ?? { text: `meta ${one.key}`, value: hex });
        this.#mask = undefined;
        break;
      case 'ct':
        this.#registers.set(1, CONNTRACK[one.key] ?? { text: `ct ${one.key}`, value: hex });
        break;
      case 'payload':
        this.#registers.set(one.register ?? 1, this.#payload(one));
        break;
      case 'bitwise':
        this.#mask = { mask: one.mask, xor: one.xor };
        break;
      case 'cmp':
        this.#compare(one);
        break;
      case 'lookup':
        this.#lookup(one);
        break;
      case 'immediate':
        this.#immediates.set(one.register, one.value);
        break;
      case 'verdict':
        this.#say(verdictText(one));
        break;
      case 'counter':
        this.#say('counter');
        break;
      case 'reject':
        if (one.type === 1) this.#flush('transport');
        this.#say(one.type === 1 ? 'reject with tcp reset' : 'reject');
        break;
      case 'byteorder':
        break;
      case 'other':
        this.#other(one.name, attributeOf(element, 2) ?? Buffer.alloc(0));
        break;
      default:
        this.#say(`xt ${one.kind}`);
    }
  }

  #other(name: string, data: Buffer): void {
    if (name === 'masq') this.#say('masquerade');
    else if (name === 'fib')
      this.#registers.set(1, { text: 'fib daddr type', value: (bytes) => `${bytes.readUInt32LE()}` });
    else if (name === 'redir')
      this.#say(`redirect to :${this.#port(u32(attributeOf(data, REDIR.regProtoMin)))}`);
    else if (name === 'nat') this.#nat(data);
    else this.#say(name);
  }

  #nat(data: Buffer): void {
    const family = u32(attributeOf(data, NAT.family)) === 2 ? 'ip' : 'ip6';
    const address = this.#immediates.get(u32(attributeOf(data, NAT.regAddrMin)));
    // In a table of one family the keyword says nothing new; with a map it is needed for its concatenation.
    const to = this.#table.family === 1 ? ` ${family} to` : ' to';
    if (address === undefined) {
      const mapped = this.#registers.get(1)?.text ?? '';
      this.#say(`dnat ${family} to ${mapped}`);
      return;
    }
    const [first, last] = [NAT.regProtoMin, NAT.regProtoMax].map((register) => {
      const number = attributeOf(data, register);
      return number === undefined ? undefined : this.#port(number.readUInt32BE());
    });
    const text = addressText(address);
    const ports = first === last ? first : `${first}-${last}`;
    this.#say(`dnat${to} ${ports === undefined ? text : `${family === 'ip' ? text : `[${text}]`}:${ports}`}`);
  }

  #port(register: number): string {
    return `${this.#immediates.get(register)?.readUInt16BE()}`;
  }

  #payload({ base, offset, length }: DecodedExpression & { kind: 'payload' }): Loaded {
    if (base === 0)
      return { text: 'ether saddr', value: (bytes) => bytes.toString('hex').replaceAll(/(..)(?=.)/g, '$1:') };
    if (base === 2) return { text: 'dport', value: (bytes) => `${bytes.readUInt16BE()}` };
    const sides = this.#network === 'ip' ? { 12: 'saddr', 16: 'daddr' } : { 8: 'saddr', 24: 'daddr' };
    const size = this.#network === 'ip' ? 4 : 16;
    const side = (sides as Record<number, string>)[offset] ?? `@nh,${offset}`;
    const value = (bytes: Buffer): string => {
      const whole = Buffer.alloc(size);
      bytes.copy(whole);
      return `${addressText(whole)}${length < size ? `/${8 * length}` : ''}`;
    };
    return { text: `${this.#network} ${side}`, value };
  }

  #compare({ register, op, value }: DecodedExpression & { kind: 'cmp' }): void {
    const loaded = this.#registers.get(register) ?? { text: `reg ${register}`, value: hex };
    const mask = this.#mask;
    this.#mask = undefined;
    if (loaded.text === 'meta l4proto' || loaded.text === 'meta nfproto') {
      this.#dependency(loaded, value);
      return;
    }
    if (op === CompareOp.gte) {
      this.#from = loaded.value(value);
      return;
    }
    const isTransport = loaded.text === 'dport';
    this.#flush(isTransport ? 'transport' : loaded.text.startsWith('ip') ? 'network' : undefined);
    const name = isTransport ? `${this.#protocol} dport` : loaded.text;
    const not = op === CompareOp.neq ? '!= ' : '';
    if (op === CompareOp.lte) this.#say(`${name} ${this.#from}-${loaded.value(value)}`);
    else if (mask === undefined) this.#say(`${name} ${not}${loaded.value(value)}`);
    else if (name.startsWith('ip')) this.#say(`${name} ${not}${loaded.value(value)}/${prefixOf(mask.mask)}`);
    else if (name.startsWith('ct')) this.#say(`${name} ${loaded.value(mask.mask)}`);
    else this.#say(`${name} & ${this.#bits(mask.mask)} == ${this.#bits(value)}`);
  }

  #dependency(loaded: Loaded, value: Buffer): void {
    const isProtocol = loaded.text === 'meta l4proto';
    if (isProtocol) this.#protocol = PROTOCOL_NAMES.get(value[0] ?? 0) ?? `${value[0]}`;
    else this.#network = value[0] === 2 ? 'ip' : 'ip6';
    this.#flush();
    this.#pending = { text: `${loaded.text} ${value[0]}`, of: isProtocol ? 'transport' : 'network' };
  }

  #lookup({ set, destination, inverted }: DecodedExpression & { kind: 'lookup' }): void {
    const registers = [...this.#registers].sort(([one], [other]) => words(one) - words(other));
    const texts = registers.map(([, { text }]) =>
      text === 'dport' ? `${this.#protocol ?? 'th'} dport` : text,
    );
    this.#registers.clear();
    this.#flush(texts.some((text) => text.endsWith('dport')) ? 'transport' : 'network');
    const key = texts.join(' . ');
    if (destination === undefined) this.#say(`${key} ${inverted ? '!= ' : ''}@${set}`);
    else if (destination === 0) this.#say(`${key} vmap @${set}`);
    else this.#registers.set(1, { text: `${key} map @${set}`, value: hex });
  }

  #bits(bytes: Buffer | undefined): string {
    return `0x${(bytes?.readUInt32LE() ?? 0).toString(16).padStart(8, '0')}`;
  }
}

/** Register 1 is words 8 to 11, 2 is 12 to 15. */
function words(register: number): number {
  return register < 8 ? 8 + 4 * (register - 1) : register;
}

const META: Readonly<Record<number, Loaded>> = {
  3: { text: 'meta mark', value: hex },
  6: { text: 'iifname', value: (bytes) => `"${nameText(bytes)}"` },
  7: { text: 'oifname', value: (bytes) => `"${nameText(bytes)}"` },
  10: {
    text: 'meta skuid',
    value: (bytes) => `${bytes[0] === 0 ? bytes.readUInt32BE() : bytes.readUInt32LE()}`,
  },
  15: { text: 'meta nfproto', value: hex },
  16: { text: 'meta l4proto', value: hex },
};

const CONNTRACK: Readonly<Record<number, Loaded>> = {
  0: { text: 'ct state', value: bitsText },
  2: { text: 'ct status', value: bitsText },
};

export function verdictText(
  verdict: { readonly code: number; readonly chain: string | undefined } | undefined,
): string {
  const names: Readonly<Record<number, string>> = {
    0: 'drop',
    1: 'accept',
    [-3]: 'jump',
    [-4]: 'goto',
    [-5]: 'return',
  };
  const name = names[verdict?.code ?? 0] ?? `verdict ${verdict?.code}`;
  return verdict?.chain === undefined ? name : `${name} ${verdict.chain}`;
}

/** `0x2,0x4` */
function bitsText(bytes: Buffer): string {
  const number = bytes.readUInt32LE();
  const bits = Array.from({ length: 32 }, (_, at) => 2 ** at).filter((bit) => (number & bit) !== 0);
  return bits.map((bit) => `0x${bit.toString(16)}`).join(',');
}

export function addressText(bytes: Buffer): string {
  const address = addressFromBytes(bytes);
  return address === undefined ? hex(bytes) : formatAddress(address);
}

export function nameText(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}

function prefixOf(mask: Buffer): number {
  return [...mask].reduce((bits, byte) => bits + byte.toString(2).replaceAll('0', '').length, 0);
}

function hex(bytes: Buffer): string {
  return `0x${bytes.toString('hex')}`;
}

export function u32(bytes: Buffer | undefined): number {
  return bytes?.readUInt32BE() ?? 0;
}
