import { addressBytes, networkOf, parseCidr } from '../../cni/address.ts';
import { ruleText } from '../iptables/render.ts';
import { attributeOf } from '../nftables/tree.ts';
import type { Family, ForeignRule, PortRange, Rule } from '../ruleset.ts';
import { haveCommonPort, type Entry } from '../table.ts';
import { decodeRule, jumpTarget } from './decode-rule.ts';
import { portsOf } from './decode-xtables.ts';

/** A rule as the kernel listed it; decoded only when its bytes leave a doubt, because a chain may hold ten thousand. */
export class KernelRule implements Entry {
  readonly handle: bigint;
  readonly #family: Family;
  readonly #list: Buffer;
  #rule: Rule | ForeignRule | undefined;

  /** @param body NFTA_RULE_* attributes; a view that may change later, hence copied */
  constructor(family: Family, body: Buffer) {
    this.#family = family;
    this.handle = attributeOf(body, RULE_HANDLE)?.readBigUInt64BE() ?? 0n;
    this.#list = Buffer.from(attributeOf(body, RULE_EXPRESSIONS) ?? Buffer.alloc(0));
  }

  get rule(): Rule | ForeignRule {
    this.#rule ??= decodeRule(this.#family, this.#list) ?? {
      foreign: `nf_tables rule with handle ${this.handle}`,
    };
    return this.#rule;
  }

  get text(): string {
    const { rule } = this;
    return 'foreign' in rule ? rule.foreign : ruleText(rule);
  }

  leadsTo(chain: string): boolean {
    return this.#list.includes(chain) && jumpTarget(this.#list) === chain;
  }

  /** Cheap and sure when it says no: a rule with an address, a comment or a jump carries its bytes. */
  cannotBe(wanted: Rule): boolean {
    return needlesOf(wanted).some((needle) => !this.#list.includes(needle));
  }

  /**
   * Reads the list of ports out of the match's bytes, if they are where they always are:
   *
   *     "multiport" NUL, padded to 12 | length, NFTA_MATCH_REV u32 | length, NFTA_MATCH_INFO | struct xt_multiport_v1
   */
  cannotBeFor(ports: readonly PortRange[]): boolean {
    const at = this.#list.indexOf(MULTIPORT);
    const info = at + 12 + 8 + 4;
    if (at < 0 || this.#list.length < info + 48 || this.#list.indexOf(MULTIPORT, info) >= 0) return false;
    if (this.#list.readUInt16LE(info - 2) !== MATCH_INFO) return false;
    const list = this.#list.subarray(info, info + 48);
    // Source ports, or an inverted list: to be looked at.
    if (list[0] !== 1 || list[47] !== 0) return false;
    return !haveCommonPort(portsOf(list), ports);
  }
}

const MULTIPORT = 'multiport\0';
/** NFTA_MATCH_INFO of linux/netfilter/nf_tables.h */
const MATCH_INFO = 3;

const RULE_HANDLE = 3;
const RULE_EXPRESSIONS = 4;

const needles = new WeakMap<Rule, readonly Uint8Array[]>();

function needlesOf(rule: Rule): readonly Uint8Array[] {
  const known = needles.get(rule);
  if (known !== undefined) return known;
  const found = [
    ...[rule.source, rule.destination].flatMap((tested) =>
      tested === undefined ? [] : networkBytes(tested.value),
    ),
    ...(rule.matches ?? []).flatMap((match) =>
      match.kind === 'comment' ? [Buffer.from(match.comment)] : [],
    ),
    ...(rule.target.kind === 'jump' ? [Buffer.from(rule.target.chain)] : []),
  ];
  needles.set(rule, found);
  return found;
}

/** The whole bytes of the prefix: at least these are compared in the kernel. */
function networkBytes(text: string): Uint8Array[] {
  const cidr = parseCidr(text);
  return cidr === undefined
    ? []
    : [addressBytes(networkOf(cidr).address).subarray(0, Math.floor(cidr.prefix / 8))];
}
