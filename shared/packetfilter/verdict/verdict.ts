import { VerdictCode } from '../nftables/expressions.ts';
import type { NftTable } from '../nftables/model.ts';
import type { NftReader, StandingBaseChain } from '../nftables/reader.ts';
import { followRule, type RuleOutcome } from './follow-rule.ts';
import type { KnownPacket } from './packet.ts';

/** `unclear`: something that could not be followed decides it. */
export type Fate = 'accepted' | 'dropped' | 'unclear';

/**
 * What becomes of a packet in somebody's base chain. An accept elsewhere does not change it: each base chain of a hook is
 * asked, and one that drops is enough (nft(8), "Base chains").
 */
export function fateIn(
  view: NftReader,
  { table, name, policy }: StandingBaseChain,
  packet: KnownPacket,
): Fate {
  const ends = new Trial(view, table, packet).chain(name, 0);
  if (ends.delete('passed')) ends.add(policy === 'drop' ? 'dropped' : 'accepted');
  const [only] = ends;
  return ends.size === 1 && only !== undefined && only !== 'passed' ? only : 'unclear';
}

/** How a packet may come out of a chain; `passed` when its rules decide nothing. */
type End = 'accepted' | 'dropped' | 'passed';
/** How it may come out of a rule: on to the next one, or out of the chain. */
type Step = Exclude<End, 'passed'> | 'next' | 'out';

const ANYTHING: readonly Step[] = ['accepted', 'dropped', 'next', 'out'];
/** More than any chain that a person wrote; longer ones are not followed to their end. */
const MOST_RULES = 1_000;
/** NFT_JUMP_STACK_SIZE */
const DEEPEST = 16;

class Trial {
  readonly #view: NftReader;
  readonly #table: NftTable;
  readonly #packet: KnownPacket;
  #left = MOST_RULES;

  constructor(view: NftReader, table: NftTable, packet: KnownPacket) {
    this.#view = view;
    this.#table = table;
    this.#packet = packet;
  }

  /** Every end that cannot be ruled out. */
  chain(name: string, depth: number): Set<End> {
    const ends = new Set<End>();
    for (const { expressions } of this.#view.rules({ table: this.#table, name })) {
      const steps = this.#rule(expressions, depth);
      for (const step of steps) {
        if (step === 'out') ends.add('passed');
        else if (step !== 'next') ends.add(step);
      }
      if (!steps.includes('next')) return ends;
    }
    return ends.add('passed');
  }

  #rule(expressions: Buffer, depth: number): readonly Step[] {
    if (--this.#left < 0) return ANYTHING;
    const outcome = followRule(this.#view, this.#table, expressions, this.#packet);
    if (outcome.matches === 'no') return ['next'];
    const steps = this.#verdict(outcome, depth);
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
        return this.#below(chain, depth, 'next');
      case VerdictCode.goto:
        return this.#below(chain, depth, 'out');
      case 'any':
        return ANYTHING;
      default:
        return ['next'];
    }
  }

  /** @param passed where a packet goes on that the other chain decides nothing about */
  #below(chain: string | undefined, depth: number, passed: Step): Step[] {
    if (chain === undefined || depth >= DEEPEST) return [...ANYTHING];
    return [...this.chain(chain, depth + 1)].map((end) => (end === 'passed' ? passed : end));
  }
}
