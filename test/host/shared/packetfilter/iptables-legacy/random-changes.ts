import { ruleText } from '../../../../../shared/packetfilter/iptables/render.ts';
import type {
  EnsuredRule,
  Family,
  Rule,
  TableChange,
  TableName,
} from '../../../../../shared/packetfilter/ruleset.ts';
import type { Random } from '../../../../support/random.ts';
import { randomRule } from './random-rules.ts';

type Mutable = { -readonly [Key in keyof TableChange]: TableChange[Key] };

/** Changes of one table as plugins make them, one after the other; most can be carried out, and some have to be refused. */
export class RandomChanges {
  readonly #random: Random;
  readonly #family: Family;
  readonly #table: TableName;
  /** Rules that changes before have named: to be removed or ensured again. */
  readonly #known: { readonly chain: string; readonly rule: Rule }[] = [];
  readonly #own: readonly string[];

  constructor(random: Random, family: Family, table: TableName) {
    this.#random = random;
    this.#family = family;
    this.#table = table;
    this.#own = ['CNI-A', 'CNI-B', 'CNI-FORWARD', 'B', 'zz'];
  }

  next(): TableChange {
    const random = this.#random;
    const change: Mutable = { family: this.#family, table: this.#table };
    // Chains that are jumped to exist, nearly always.
    if (random.chance(0.97)) change.ensureChains = this.#own;
    if (random.chance(0.3)) {
      const chain = random.pick(this.#own);
      change.setChains = [{ chain, rules: this.#distinct(chain, random.below(5)) }];
    }
    if (random.chance(0.6)) change.ensureRules = [this.#ensured(), this.#ensured()];
    if (random.chance(0.3)) change.setJumps = [this.#jumps()];
    if (random.chance(0.3) && this.#known.length > 0) change.removeRules = [random.pick(this.#known)];
    if (random.chance(0.3)) change.deleteChains = [random.pick([...this.#own, 'A1', 'MINE', 'none'])];
    return change;
  }

  #ensured(): EnsuredRule {
    const random = this.#random;
    const at = random.pick(['first', 'prepended', 'last'] as const);
    if (this.#known.length > 0 && random.chance(0.4)) return { ...random.pick(this.#known), at };
    const chain = random.pick(['OUTPUT', 'INPUT', ...this.#own]);
    const [rule] = this.#distinct(chain, 1);
    if (rule === undefined) throw new Error('one rule was asked for');
    return { chain, rule, at };
  }

  #jumps(): { chain: string; to: string; rules: Rule[] } {
    const to = this.#random.pick(this.#own);
    const comments = ['x', 'y'].slice(0, this.#random.below(3));
    const rules = comments.map((comment): Rule => ({
      matches: [{ kind: 'comment', comment }],
      target: { kind: 'jump', chain: to },
    }));
    return { chain: this.#random.pick(['INPUT', 'OUTPUT']), to, rules };
  }

  /** Jumps lead to chains behind their own in the alphabet only: no circles. */
  #distinct(chain: string, count: number): Rule[] {
    const behind = this.#own.filter((other) => other > chain || !this.#own.includes(chain));
    const rules = Array.from({ length: count }, () =>
      withinReach(chain, randomRule(this.#random, this.#family, this.#table, behind)),
    );
    const distinct = [...new Map(rules.map((rule) => [ruleText(rule), rule])).values()];
    this.#known.push(...distinct.map((rule) => ({ chain, rule })));
    return distinct;
  }
}

/** iptables takes no rule of the kernel's chains for interfaces that are not known there. */
function withinReach(chain: string, rule: Rule): Rule {
  const { inInterface, outInterface, ...rest } = rule;
  if (chain === 'INPUT') return inInterface === undefined ? rest : { ...rest, inInterface };
  if (chain === 'OUTPUT') return outInterface === undefined ? rest : { ...rest, outInterface };
  return rule;
}
