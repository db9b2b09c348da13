import type { PlannedChange, TableChange } from './ruleset.ts';

/** The chains that a change is known to look at, so that all of them can be asked for at once. */
export function namedChains(
  change: PlannedChange | Omit<TableChange, 'family' | 'table'>,
): readonly string[] {
  if ('plan' in change) return change.looksAt ?? [];
  return [
    ...(change.removeRules ?? []).map(({ chain }) => chain),
    ...(change.ensureChains ?? []),
    ...(change.setChains ?? []).map(({ chain }) => chain),
    ...(change.setJumps ?? []).map(({ chain }) => chain),
    ...(change.ensureRules ?? []).map(({ chain }) => chain),
    ...(change.deleteChains ?? []).filter((which) => typeof which === 'string'),
  ];
}
