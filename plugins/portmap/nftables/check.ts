import type { NftReader, StandingRule } from '../../../shared/packetfilter/nftables/reader.ts';
import type { ChangedKeys, PortForwarding } from '../backend.ts';
import type { PortmapSettings } from '../config.ts';
import {
  baseChain,
  containerChain,
  dnatRule,
  markStatements,
  masqueradeRule,
  splitShifted,
  tableOf,
} from './plan.ts';
import { hasContainerRules, skeletonRequests, wantedElements } from './requests.ts';
import { portStates } from './shared-ports.ts';

/**
 * The first object of a container that is missing, as a phrase for the error; undefined when its ports work as they were set up. Settings
 * that differ from those of its ADD are no damage: their keys go to `changed`.
 */
export function missingObject(
  reader: NftReader,
  given: PortForwarding,
  changed: ChangedKeys,
): string | undefined {
  const forwarding = { ...given, mappings: splitShifted(given.mappings) };
  const { family } = forwarding;
  const table = `table ${tableOf(family).family} ${tableOf(family).name}`;
  if (!reader.hasTable(tableOf(family))) return `${table} is missing`;
  if (skeletonRequests(reader, family).length > 0) return `lookup rule is missing from ${table}`;
  return (
    missingContainerRule(reader, forwarding, table, changed) ?? missingElement(reader, forwarding, table)
  );
}

function missingElement(reader: NftReader, forwarding: PortForwarding, table: string): string | undefined {
  const chain = containerChain(forwarding, forwarding.family);
  const wanted = wantedElements(forwarding);
  const states = portStates(reader, forwarding.family, wanted);
  const lost = wanted.find((_, at) => states[at]?.chains.includes(chain.name) !== true);
  if (lost === undefined) return undefined;
  return `element ${lost.key.join(' . ')} is missing from map ${lost.set.name} of ${table}`;
}

/** The present rules tell the settings of the container's ADD; rules that no settings make are damaged. */
function missingContainerRule(
  reader: NftReader,
  forwarding: PortForwarding,
  table: string,
  changed: ChangedKeys,
): string | undefined {
  const { settings, family } = forwarding;
  const chain = containerChain(forwarding, family);
  const where = `chain ${chain.name} of ${table}`;
  if (hasContainerRules(reader, forwarding)) {
    return settings.snat ? missingMasquerade(reader, forwarding, table, settings.markMasqBit) : undefined;
  }
  const present = reader.rules(chain);
  const lost = missingDnat(present, forwarding);
  if (lost !== undefined) return `rule "${lost}" is missing from ${where}`;
  const marks = present.filter(({ comment }) => comment === undefined);
  const setUp = marks.length === 0 ? { snat: false } : markSettings(marks, forwarding);
  if (setUp === undefined) return `rule that marks packets for masquerading is missing from ${where}`;
  const sameMarks = (['snat', 'masqAll', 'markMasqBit'] as const).filter((key) => {
    const isChanged = setUp[key] !== undefined && setUp[key] !== settings[key];
    if (isChanged) changed.add(key);
    return isChanged;
  });
  // With equal marks, only the conditions can make the difference.
  if (sameMarks.length === 0) changed.add(family === 'ipv4' ? 'conditionsV4' : 'conditionsV6');
  return setUp.markMasqBit === undefined
    ? undefined
    : missingMasquerade(reader, forwarding, table, setUp.markMasqBit);
}

/** @returns the comment of the first rule that is missing, whatever the conditions before it */
function missingDnat(present: readonly StandingRule[], forwarding: PortForwarding): string | undefined {
  const byComment = Map.groupBy(present, ({ comment }) => comment);
  return forwarding.mappings
    .map((mapping) => dnatRule(forwarding, mapping))
    .find(
      ({ statements, comment }) => byComment.get(comment)?.some((rule) => rule.endsWith(statements)) !== true,
    )?.comment;
}

type MarkSettings = Partial<Pick<PortmapSettings, 'snat' | 'masqAll' | 'markMasqBit'>>;

/** The settings that make these rules; undefined when none do. */
function markSettings(marks: readonly StandingRule[], forwarding: PortForwarding): MarkSettings | undefined {
  const { settings } = forwarding;
  const isMadeBy = (masqAll: boolean, markMasqBit: number): boolean => {
    const then = { ...forwarding, settings: { ...settings, snat: true, masqAll, markMasqBit } };
    const wanted = markStatements(then);
    return (
      marks.length === wanted.length &&
      wanted.every((statements, at) => marks[at]?.endsWith(statements) === true)
    );
  };
  const bits = [settings.markMasqBit, ...Array.from({ length: 32 }, (_, bit) => bit)];
  for (const markMasqBit of bits) {
    // The rule of masqAll is the end of the other ones: a rule with a source must not count for it.
    if (isMadeBy(false, markMasqBit)) return { snat: true, masqAll: false, markMasqBit };
    if (isMadeBy(true, markMasqBit) && !hasSource(marks, forwarding, markMasqBit)) {
      return { snat: true, masqAll: true, markMasqBit };
    }
  }
  return undefined;
}

function hasSource(marks: readonly StandingRule[], forwarding: PortForwarding, markMasqBit: number): boolean {
  const settings = { ...forwarding.settings, snat: true, masqAll: false, markMasqBit };
  const sources = markStatements({ ...forwarding, settings });
  return marks.some((rule) => sources.some((statements) => rule.endsWith(statements)));
}

function missingMasquerade(
  reader: NftReader,
  { family }: PortForwarding,
  table: string,
  markMasqBit: number,
): string | undefined {
  const statements = masqueradeRule(markMasqBit);
  return reader.rules(baseChain(family, 'postrouting')).some((present) => present.is({ statements }))
    ? undefined
    : `masquerade rule is missing from ${table}`;
}
