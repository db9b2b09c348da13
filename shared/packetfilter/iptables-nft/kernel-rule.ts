import { ruleText } from '../iptables/render.ts';
import { attributeOf } from '../nftables/tree.ts';
import type { Family, ForeignRule, PortRange, Rule } from '../ruleset.ts';
import type { Entry } from '../rules.ts';
import { decodeRule, jumpTarget } from './decode-rule.ts';
import { chainNeedle, needlesOf } from './needles.ts';
import { isSurelyNotFor } from './port-lists.ts';

/** A rule as the kernel listed it; decoded only when its bytes leave a doubt, because a chain may hold ten thousand. */
export class KernelRule implements Entry {
  readonly handle: bigint;
  readonly #family: Family;
  readonly #list: Buffer;
  #rule: Rule | ForeignRule | undefined;

  /** @param body NFTA_RULE_* attributes, in memory that stays as it is */
  constructor(family: Family, body: Buffer) {
    this.#family = family;
    this.handle = handleOf(body);
    this.#list = attributeOf(body, RULE_EXPRESSIONS) ?? Buffer.alloc(0);
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
    return this.#list.includes(chainNeedle(chain)) && jumpTarget(this.#list) === chain;
  }

  /** Cheap and sure when it says no. */
  cannotBe(wanted: Rule): boolean {
    return needlesOf(wanted).some((needle) => !this.#list.includes(needle));
  }

  cannotBeFor(ports: readonly PortRange[]): boolean {
    return isSurelyNotFor(this.#list, ports);
  }
}

/** Unique in a table, also among rules that are gone. @param body NFTA_RULE_* attributes */
export function handleOf(body: Buffer): bigint {
  return attributeOf(body, RULE_HANDLE)?.readBigUInt64BE() ?? 0n;
}

const RULE_HANDLE = 3;
const RULE_EXPRESSIONS = 4;
