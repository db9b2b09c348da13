import { isUnmanaged, jumpOf } from '../../shared/packetfilter/compare.ts';
import { ruleText } from '../../shared/packetfilter/iptables/render.ts';
import type { Family, UnmanagedRule, Rule, TableName } from '../../shared/packetfilter/ruleset.ts';
import type { OwnTable } from './backend.ts';
import { CHAINS_OF, HOOKS_OF } from './names.ts';
import type { TablePlan } from './plan.ts';

/** One chain that is not as planned. Built-in chains are only looked at for jumps to ours. */
export interface Difference {
  readonly family: Family;
  readonly table: TableName;
  readonly chain: string;
  /** `CONSUL_PROXY_INBOUND (ipv4 nat): missing -p tcp …; not planned -p udp …` */
  readonly text: string;
}

/** What stands otherwise than the plan has it: everything of ours, rules and their order, and nothing of anybody else. */
export function differences(plan: readonly TablePlan[], standing: readonly OwnTable[]): Difference[] {
  return (['ipv4', 'ipv6'] as const).flatMap((family) =>
    (['nat', 'filter'] as const).flatMap((table) => {
      const isIt = (one: { family: Family; table: TableName }): boolean =>
        one.family === family && one.table === table;
      const wanted = plan.find(isIt) ?? { family, table, chains: [], hooks: [] };
      const found = standing.find(isIt)?.chains ?? new Map<string, readonly Rule[]>();
      return [...hookDifferences(wanted, found), ...chainDifferences(wanted, found)];
    }),
  );
}

type Chains = OwnTable['chains'];

function hookDifferences({ family, table, hooks }: TablePlan, found: Chains): Difference[] {
  const own: readonly string[] = CHAINS_OF[table];
  return HOOKS_OF[table].flatMap((hook) => {
    const wanted = hooks.find(({ chain }) => chain === hook)?.rules ?? [];
    const jumps = (found.get(hook) ?? []).filter((rule) => own.includes(jumpOf(rule) ?? ''));
    return compared({ family, table, chain: hook }, wanted, jumps);
  });
}

function chainDifferences({ family, table, chains }: TablePlan, found: Chains): Difference[] {
  return CHAINS_OF[table].flatMap((chain) => {
    const wanted = chains.find((one) => one.chain === chain)?.rules;
    const rules = found.get(chain);
    if (wanted !== undefined && rules === undefined)
      return [difference({ family, table, chain }, 'the chain is gone')];
    if (wanted === undefined && rules !== undefined)
      return [difference({ family, table, chain }, 'the chain is not planned')];
    return compared({ family, table, chain }, wanted ?? [], rules ?? []);
  });
}

function compared(
  where: Omit<Difference, 'text'>,
  wanted: readonly Rule[],
  found: readonly (Rule | UnmanagedRule)[],
): Difference[] {
  const wantedTexts = wanted.map((rule) => ruleText(rule));
  const foundTexts = found.map((rule) => (isUnmanaged(rule) ? rule.unmanaged : ruleText(rule)));
  const missing = without(wantedTexts, foundTexts).map((text) => `missing ${text}`);
  const surplus = without(foundTexts, wantedTexts).map((text) => `not planned ${text}`);
  const parts = [...missing, ...surplus];
  if (parts.length > 0) return [difference(where, parts.join('; '))];
  return wantedTexts.every((text, at) => text === foundTexts[at])
    ? []
    : [difference(where, 'the rules stand in another order')];
}

/** `texts` less those of `others`, copy by copy. */
function without(texts: readonly string[], others: readonly string[]): string[] {
  const rest = [...others];
  return texts.filter((text) => {
    const at = rest.indexOf(text);
    if (at >= 0) rest.splice(at, 1);
    return at < 0;
  });
}

function difference(where: Omit<Difference, 'text'>, what: string): Difference {
  return { ...where, text: `${where.chain} (${where.family} ${where.table}): ${what}` };
}
