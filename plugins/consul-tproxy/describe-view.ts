import type { Family, Rule } from '../../shared/packetfilter/ruleset.ts';
import type { OwnTable } from './backend.ts';
import { ours, takesAllTcp } from './interception.ts';

export const FAMILIES = ['ipv4', 'ipv6'] as const;
export const FAMILY_NAMES = { ipv4: 'IPv4', ipv6: 'IPv6' } as const;

/** Standing rules by what they are asked for. Packets meet rules in order, so what stands behind a rule that takes all does not count. */
export class View {
  readonly #tables: readonly OwnTable[];

  constructor(tables: readonly OwnTable[]) {
    this.#tables = tables;
  }

  rules(family: Family, table: OwnTable['table'], chain: string): Rule[] {
    const found = this.#tables.find((one) => one.family === family && one.table === table);
    return ours(found?.chains.get(chain));
  }

  /** Jumps to `chain` in a built-in chain, for this protocol, that packets come to. */
  hooked(
    family: Family,
    table: OwnTable['table'],
    hook: string,
    chain: string,
    protocol: 'tcp' | 'udp',
  ): Rule[] {
    const rules = this.rules(family, table, hook);
    const end =
      protocol === 'tcp' ? rules.findIndex((rule) => !jumpsTo(rule, chain) && takesAllTcp(rule)) : -1;
    return (end < 0 ? rules : rules.slice(0, end)).filter(
      (rule) => jumpsTo(rule, chain) && rule.protocol === protocol,
    );
  }

  /** The port that TCP is redirected to, and the rules that exempt some of it; undefined when none gets that far. */
  redirect(family: Family, hook: string, chain: string, redirectChain: string): Redirect | undefined {
    if (this.hooked(family, 'nat', hook, chain, 'tcp').length === 0) return undefined;
    const exempt = before(this.rules(family, 'nat', chain), (rule) => jumpsTo(rule, redirectChain));
    const [target] = this.rules(family, 'nat', redirectChain).map((rule) => rule.target);
    return exempt === undefined || target?.kind !== 'redirect' ? undefined : { port: target.port, exempt };
  }

  /** What is exempt from the refusal of all TCP; undefined when it is not refused. */
  refusal(family: Family, hook: string, chain: string): Rule[] | undefined {
    const all = this.hooked(family, 'filter', hook, chain, 'tcp').some(isWithoutPort);
    return all ? before(this.rules(family, 'filter', chain), isReset) : undefined;
  }
}

export interface Redirect {
  readonly port: number;
  readonly exempt: readonly Rule[];
}

/** Whether a jump is for all of its protocol, not for single ports. */
export function isWithoutPort({ matches = [] }: Rule): boolean {
  return matches.every(({ kind }) => kind !== 'port');
}

/** The returns for TCP in front of the end; undefined when there is no end, or nothing comes to it. */
function before(rules: readonly Rule[], isEnd: (rule: Rule) => boolean): Rule[] | undefined {
  const end = rules.findIndex(isEnd);
  const exempt = end < 0 ? [] : rules.slice(0, end);
  return end < 0 || exempt.some(takesAllTcp)
    ? undefined
    : exempt.filter(({ target, protocol }) => target.kind === 'return' && protocol !== 'udp');
}

function jumpsTo({ target }: Rule, chain: string): boolean {
  return target.kind === 'jump' && target.chain === chain;
}

function isReset({ target }: Rule): boolean {
  return target.kind === 'reject' && target.with === 'tcp-reset';
}
