import { ruleText } from '../../../shared/packetfilter/nftables/text.ts';
import type { NftElement, NftTable } from '../../../shared/packetfilter/nftables/model.ts';
import type { NftReader } from '../../../shared/packetfilter/nftables/reader.ts';
import type { FirewallSettings } from '../config.ts';
import { ADMIN_CHAINS, FIXED_CHAINS, TABLE, type FixedChain } from './objects.ts';
import { containerElements, isEnough, jumpTo, policyOf } from './difference.ts';
import type { Subject } from '../plan.ts';

/** For CHECK: the first thing that is missing, in words. */
export function missingFromTable(
  view: NftReader,
  settings: FirewallSettings,
  subject: Subject,
): string | undefined {
  if (!view.hasTable(TABLE)) return `table ${nameOf(TABLE)} is missing`;
  for (const chain of FIXED_CHAINS) {
    const missing = missingRule(view, chain);
    if (missing !== undefined) return missing;
  }
  return (
    missingJump(view, settings) ?? missingPolicy(view, settings, subject) ?? missingContainer(view, subject)
  );
}

function missingRule(view: NftReader, { chain, rules }: FixedChain): string | undefined {
  const where = `chain ${chain.name} of table ${nameOf(chain.table)}`;
  if (!view.hasChain(chain)) return `${where} is missing`;
  const standing = view.rules(chain);
  const lost = rules.find((statements) => !standing.some((rule) => rule.is({ statements })));
  if (lost !== undefined) return `rule is missing from ${where}: ${ruleText({ statements: lost })}`;
  const inPlace = rules.every((statements, at) => standing[at]?.is({ statements }) === true);
  if (inPlace && standing.length === rules.length) return undefined;
  return `${where} holds rules of others, or its own in another order`;
}

function missingJump(view: NftReader, { adminChain }: FirewallSettings): string | undefined {
  const statements = jumpTo(adminChain);
  if (view.rules(ADMIN_CHAINS).some((rule) => rule.is({ statements }))) return undefined;
  return `rule is missing from chain ${ADMIN_CHAINS.name} of table ${nameOf(ADMIN_CHAINS.table)}: ${ruleText({ statements })}`;
}

function missingPolicy(view: NftReader, settings: FirewallSettings, subject: Subject): string | undefined {
  const lost = policyOf(settings, subject).find(
    (element) => !isEnough(element, view.element(element.set, element.key)),
  );
  return lost === undefined ? undefined : `${elementText(lost)} is missing from ${setText(lost)}`;
}

function missingContainer(view: NftReader, subject: Subject): string | undefined {
  for (const element of containerElements(subject)) {
    const standing = view.element(element.set, element.key);
    if (standing === undefined) return `${elementText(element)} is missing from ${setText(element)}`;
    if (standing.comment !== element.comment) {
      return `${elementText(element)} of ${setText(element)} is another container's (${standing.comment ?? 'no comment'})`;
    }
  }
  return undefined;
}

function nameOf({ family, name }: NftTable): string {
  return `${family} ${name}`;
}

function setText({ set }: NftElement): string {
  return `${set.data === undefined ? 'set' : 'map'} ${set.name} of table ${nameOf(set.table)}`;
}

function elementText({ key, data }: NftElement): string {
  return `${key.join(' . ')}${data === undefined ? '' : ` : ${data.kind}`}`;
}
