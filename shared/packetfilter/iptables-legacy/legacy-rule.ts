import { addressBytes, addressFromBytes, formatAddress, networkOf, parseCidr } from '../../net/address.ts';
import {
  decodeXtMark,
  decodeXtMatch,
  decodeXtPorts,
  encodeXtMatch,
  multiportRanges,
} from '../xtables/matches.ts';
import { decodeXtTarget, encodeXtTarget } from '../xtables/targets.ts';
import { ruleText } from '../iptables/render.ts';
import {
  type UnmanagedRule,
  type Match,
  type Negatable,
  PROTOCOL_NAMES,
  type PortRange,
  type Rule,
  type Target,
} from '../ruleset.ts';
import { haveCommonPort, type Entry } from '../table.ts';
import { type BlobView, Inverted, type Layout, VERDICTS, nameAt } from './layout.ts';

/** A rule as it stands in the kernel's blob; decoded when somebody looks, because a table may hold ten thousand. */
export class LegacyRule implements Entry {
  /** Its place in the blob, and that of the entry behind it. */
  readonly offset: number;
  readonly next: number;
  /** Its place among all entries of the table: where the kernel hands out its counters. */
  readonly number: number;
  readonly #view: BlobView;
  #bytes: Buffer | undefined;
  #rule: Rule | UnmanagedRule | undefined;

  constructor(view: BlobView, offset: number, next: number, number: number) {
    this.#view = view;
    this.offset = offset;
    this.next = next;
    this.number = number;
  }

  /** This entry alone. */
  get bytes(): Buffer {
    this.#bytes ??= this.#view.entries.subarray(this.offset, this.next);
    return this.#bytes;
  }

  get #layout(): Layout {
    return this.#view.layout;
  }

  get rule(): Rule | UnmanagedRule {
    // The number keeps two such rules apart: the difference goes by what rules say.
    this.#rule ??= this.#decode() ?? {
      unmanaged: `entry ${this.number} of the table, that only iptables-save can put into words`,
    };
    return this.#rule;
  }

  get text(): string {
    const { rule } = this;
    return 'unmanaged' in rule ? rule.unmanaged : ruleText(rule);
  }

  jumpsTo(chain: string): boolean {
    return this.#jump() === chain;
  }

  /** Cheap and sure when it says no: where it jumps, its addresses, the text of its comment. */
  cannotBe(wanted: Rule): boolean {
    const { source, destination } = this.#layout;
    if (wanted.target.kind === 'jump' && !this.jumpsTo(wanted.target.chain)) return true;
    if (!this.#mayHold(source, wanted.source) || !this.#mayHold(destination, wanted.destination)) return true;
    return (wanted.matches ?? []).some(
      (match) => match.kind === 'comment' && !this.bytes.includes(match.comment),
    );
  }

  /** Looks at the multiport match alone; one that is not a plain list of destination ports has to be decoded. */
  cannotBeFor(ports: readonly PortRange[]): boolean {
    const { entries } = this.#view;
    const end = this.#view.target(this.offset);
    let lists = 0;
    let common = false;
    for (let at = this.offset + this.#layout.matches; at < end; at += this.#view.half(at)) {
      if (entries[at + 2] !== M || nameAt(entries, at + 2, 29) !== 'multiport') continue;
      const info = entries.subarray(at + 32, at + 32 + 48);
      if (entries[at + 31] !== 1 || info[0] !== 1 || info[47] !== 0) return false;
      lists += 1;
      common ||= haveCommonPort(multiportRanges(info), ports);
    }
    return lists === 1 && !common;
  }

  #mayHold(at: number, wanted: Negatable | undefined): boolean {
    const bytes = wanted === undefined ? undefined : bytesOf(wanted);
    const { entries } = this.#view;
    const start = this.offset + at;
    for (let index = 0; index < (bytes?.length ?? 0); index++)
      if (bytes?.[index] !== entries[start + index]) return false;
    return true;
  }

  #decode(): Rule | undefined {
    const { flags, plainFlags, protocol: protocolAt } = this.#layout;
    const number = this.bytes.readUInt16LE(protocolAt);
    const protocol = PROTOCOL_NAMES.get(number);
    const inverted = this.bytes[this.#layout.inverted] ?? 0;
    if (!plainFlags.includes(this.bytes[flags] ?? 0) || (inverted & ~KNOWN_INVERSIONS) !== 0)
      return undefined;
    const matches = this.#matches();
    const target = this.#target();
    if (matches === undefined || target === undefined || (number !== 0 && protocol === undefined))
      return undefined;
    const parts = {
      source: this.#address(this.#layout.source, (inverted & Inverted.source) !== 0),
      destination: this.#address(this.#layout.destination, (inverted & Inverted.destination) !== 0),
      inInterface: this.#interface(this.#layout.inInterface, (inverted & Inverted.inInterface) !== 0),
      outInterface: this.#interface(this.#layout.outInterface, (inverted & Inverted.outInterface) !== 0),
    };
    if (Object.values(parts).includes('unreadable')) return undefined;
    const known = Object.fromEntries(Object.entries(parts).filter(([, part]) => part !== undefined));
    return {
      ...known,
      ...(protocol === undefined ? {} : { protocol }),
      ...(matches.length > 0 ? { matches } : {}),
      target,
    };
  }

  /** undefined: every address. */
  #address(at: number, negated: boolean): Negatable | 'unreadable' | undefined {
    const { addressBytes, maskBehind } = this.#layout;
    const prefix = prefixOf(this.bytes.subarray(at + maskBehind, at + maskBehind + addressBytes));
    const parsed = addressFromBytes(this.bytes.subarray(at, at + addressBytes));
    if (prefix === undefined || parsed === undefined) return 'unreadable';
    if (prefix === 0) return negated ? 'unreadable' : undefined;
    const value = `${formatAddress(parsed)}/${prefix}`;
    return negated ? { value, negated } : { value };
  }

  /** A mask that covers the zero behind the name means exactly this name; `br+` is kept with its plus, which is not covered. */
  #interface(at: number, negated: boolean): Negatable | 'unreadable' | undefined {
    const value = nameAt(this.bytes, at, 16);
    const mask = this.bytes.subarray(at + 32, at + 48);
    const covered = mask.filter((byte) => byte === 0xff).length;
    const length = Buffer.byteLength(value);
    if (covered === 0) return negated ? 'unreadable' : undefined;
    const exact = covered === length + 1;
    const beginning = value.endsWith('+') && covered === length - 1;
    if (!exact && !beginning) return 'unreadable';
    return negated ? { value, negated } : { value };
  }

  /** struct xt_entry_match: size u16, name 29, revision u8, data; one behind the other up to the target. */
  #matches(): Match[] | undefined {
    const matches: Match[] = [];
    const end = this.bytes.readUInt16LE(this.#layout.targetOffset);
    for (let at = this.#layout.matches; at < end; at += this.bytes.readUInt16LE(at)) {
      const info = this.bytes.subarray(at + 32, at + this.bytes.readUInt16LE(at));
      const match = decodeMatch(nameAt(this.bytes, at + 2, 29), this.bytes[at + 31] ?? 0, info);
      if (match === undefined) return undefined;
      matches.push(match);
    }
    return matches;
  }

  #target(): Target | undefined {
    const at = this.bytes.readUInt16LE(this.#layout.targetOffset);
    const name = nameAt(this.bytes, at + 2, 29);
    if (name !== '') {
      const info = this.bytes.subarray(at + 32);
      const target = decodeXtTarget(this.#view.family, name, info);
      if (target === undefined) return undefined;
      const written = encodeXtTarget(this.#view.family, target);
      return agrees(written, this.bytes[at + 31] ?? 0, info) ? target : undefined;
    }
    const chain = this.#jump();
    if (chain !== undefined) return { kind: 'jump', chain };
    const verdict = VERDICT_NAMES.get(this.bytes.readInt32LE(at + 32));
    return verdict === undefined ? undefined : { kind: verdict };
  }

  /** The chain whose first rule stands where it leads to; a rule without a target leads just to the next. */
  #jump(): string | undefined {
    const verdict = this.#view.verdict(this.offset);
    if (verdict === undefined || verdict < 0 || verdict === this.next) return undefined;
    return this.#view.heads.get(verdict);
  }
}

/** 'm', as names of few matches begin. */
const M = 0x6d;

/** Asked for every rule of a chain in turn. */
const bytesOfAddresses = new WeakMap<Negatable, Uint8Array | undefined>();

function bytesOf(wanted: Negatable): Uint8Array | undefined {
  if (!bytesOfAddresses.has(wanted)) {
    const cidr = parseCidr(wanted.value);
    bytesOfAddresses.set(wanted, cidr && addressBytes(networkOf(cidr).address));
  }
  return bytesOfAddresses.get(wanted);
}

const KNOWN_INVERSIONS =
  Inverted.inInterface | Inverted.outInterface | Inverted.source | Inverted.destination;
const VERDICT_NAMES: ReadonlyMap<number, keyof typeof VERDICTS> = new Map(
  Object.entries(VERDICTS).map(([name, number]) => [number, name as keyof typeof VERDICTS]),
);

function decodeMatch(name: string, revision: number, info: Buffer): Match | undefined {
  if (name === 'tcp' || name === 'udp') return revision === 0 ? decodeXtPorts(info) : undefined;
  if (name === 'mark') return revision === 1 ? decodeXtMark(info) : undefined;
  const match = decodeXtMatch(name, info);
  return match !== undefined && agrees(encodeXtMatch(match), revision, info) ? match : undefined;
}

/** What was understood, written again, gives the same bytes: then nothing was overlooked. */
function agrees(
  { revision, info }: { revision: number; info: Uint8Array },
  standing: number,
  bytes: Buffer,
): boolean {
  return (
    revision === standing &&
    bytes.subarray(0, info.length).equals(info) &&
    bytes.subarray(info.length).every((byte) => byte === 0)
  );
}

/** undefined: not the mask of a prefix. */
function prefixOf(mask: Buffer): number | undefined {
  const bits = [...mask].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  return /^1*0*$/.test(bits) ? bits.replaceAll('0', '').length : undefined;
}
