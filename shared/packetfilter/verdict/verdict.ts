import { VerdictCode } from '../nftables/expressions.ts';
import type { NftTable } from '../nftables/model.ts';
import { decodeExpressions, type DecodedExpression } from '../nftables/decode-expressions.ts';
import type { NftReader, StandingBaseChain } from '../nftables/reader.ts';
import { followRule, type RuleOutcome } from './follow-rule.ts';
import type { KnownPacket } from './packet.ts';

/** `unclear`: it depends on something that could not be followed. */
export type ChainVerdict = 'accepted' | 'dropped' | 'unclear';

/** What decides: a rule of a chain, or the policy of the base chain. */
export type Decider = 'policy' | { readonly chain: string; readonly handle: bigint };

export interface Followed {
  readonly verdict: ChainVerdict;
  /** What dropped the packet, the first one when there are several possibilities; undefined unless `dropped`. */
  readonly by: Decider | undefined;
}

/** The rules of a table's chains, each listed and decoded once for any number of packets. */
export class ChainRules {
  readonly reader: NftReader;
  readonly table: NftTable;
  readonly #chains = new Map<string, readonly ChainRule[]>();

  constructor(reader: NftReader, table: NftTable) {
    this.reader = reader;
    this.table = table;
  }

  of(chain: string): readonly ChainRule[] {
    let rules = this.#chains.get(chain);
    if (rules === undefined) {
      rules = this.reader
        .rules({ table: this.table, name: chain })
        .map(({ handle, expressions }) => ({ handle, expressions: decodeExpressions(expressions) }));
      this.#chains.set(chain, rules);
    }
    return rules;
  }
}

interface ChainRule {
  readonly handle: bigint;
  readonly expressions: readonly DecodedExpression[];
}

/**
 * What a base chain does with a packet. An accept in another chain does not change it: the kernel asks each base chain of a hook, and one
 * that drops is enough (nft(8), "Base chains").
 */
export function verdictIn(
  rules: ChainRules,
  { name, policy }: Pick<StandingBaseChain, 'name' | 'policy'>,
  packet: KnownPacket,
): Followed {
  const walk = new ChainWalk(rules, packet);
  const ends = walk.chain(name, 0);
  let by = walk.droppedBy;
  if (ends.delete('passed')) {
    ends.add(policy === 'drop' ? 'dropped' : 'accepted');
    if (policy === 'drop') by ??= 'policy';
  }
  const [only] = ends;
  const verdict = ends.size === 1 && only !== undefined && only !== 'passed' ? only : 'unclear';
  return { verdict, by: verdict === 'dropped' ? by : undefined };
}

/** How a packet may leave a chain; `passed` when its rules decide nothing. */
type End = 'accepted' | 'dropped' | 'passed';
/** How it may leave a rule: to the next one, or out of the chain. */
type Step = Exclude<End, 'passed'> | 'next' | 'out';

const ANYTHING: readonly Step[] = ['accepted', 'dropped', 'next', 'out'];
/** Rules that are followed for one packet; what comes after them is unclear. */
const MOST_RULES = 5_000;
/** NFT_JUMP_STACK_SIZE */
const DEEPEST = 16;

class ChainWalk {
  droppedBy: Decider | undefined;
  readonly #rules: ChainRules;
  readonly #packet: KnownPacket;
  #rulesLeft = MOST_RULES;

  constructor(rules: ChainRules, packet: KnownPacket) {
    this.#rules = rules;
    this.#packet = packet;
  }

  /** Every end that cannot be excluded. */
  chain(name: string, depth: number): Set<End> {
    const ends = new Set<End>();
    for (const { expressions, handle } of this.#rules.of(name)) {
      const steps = this.#rule(expressions, { chain: name, handle }, depth);
      for (const step of steps) {
        if (step === 'out') ends.add('passed');
        else if (step !== 'next') ends.add(step);
      }
      if (!steps.includes('next')) return ends;
    }
    return ends.add('passed');
  }

  #rule(expressions: readonly DecodedExpression[], rule: Decider, depth: number): readonly Step[] {
    if (--this.#rulesLeft < 0) return ANYTHING;
    const outcome = followRule(this.#rules.reader, this.#rules.table, expressions, this.#packet);
    if (outcome.matches === 'no') return ['next'];
    const steps = this.#verdict(outcome, depth);
    if (steps.includes('dropped')) this.droppedBy ??= rule;
    return outcome.matches === 'yes' ? steps : [...steps, 'next'];
  }

  #verdict({ verdict, chain }: RuleOutcome, depth: number): readonly Step[] {
    switch (verdict) {
      case VerdictCode.accept:
        return ['accepted'];
      case VerdictCode.drop:
        return ['dropped'];
      case VerdictCode.return:
        return ['out'];
      case VerdictCode.jump:
        return this.#called(chain, depth, 'next');
      case VerdictCode.goto:
        return this.#called(chain, depth, 'out');
      case 'any':
        return ANYTHING;
      default:
        return ['next'];
    }
  }

  /** @param passed where a packet goes on about which the called chain decides nothing */
  #called(chain: string | undefined, depth: number, passed: Step): Step[] {
    if (chain === undefined || depth >= DEEPEST) return [...ANYTHING];
    return [...this.chain(chain, depth + 1)].map((end) => (end === 'passed' ? passed : end));
  }
}
