import type { Trace } from '../../../shared/attachments/leftover.ts';
import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import type { NftChain, NftTable } from '../../../shared/packetfilter/nftables/model.ts';
import type { NftReader, StandingRule } from '../../../shared/packetfilter/nftables/reader.ts';
import type { Attachment } from '../identity.ts';
import { masqueradeRule, networkTag, tag, traceOf } from './rule.ts';

/**
 * Masquerading by the reference's nftables back end, or by an earlier build of this suite: table inet cni_plugins_masquerade, the rules of all
 * containers in chain masq_checks. It stays as it is until DEL, or until ADD is repeated. On a host without that table nothing is listed.
 */
export const referenceMasquerade = {
  removal: (view: NftReader, attachment: Attachment): NetlinkRequest[] =>
    ownRules(view, attachment).map((standing) => standing.deletion()),

  isPresent: (view: NftReader, attachment: Attachment): boolean => ownRules(view, attachment).length > 0,

  isComplete: (view: NftReader, attachment: Attachment, addresses: readonly string[]): boolean =>
    leadsToRules(view) && isAmong(ownRules(view, attachment), attachment, addresses),

  /** Those that are complete, at the cost of one list. */
  completeAmong: <T extends { readonly attachment: Attachment; readonly addresses: readonly string[] }>(
    view: NftReader,
    interfaces: readonly T[],
  ): Set<T> => {
    if (!leadsToRules(view)) return new Set();
    const byTag = Map.groupBy(view.rules(CHECKS), ({ comment }) => comment?.split(',')[0]);
    return new Set(
      interfaces.filter(({ attachment, addresses }) =>
        isAmong(byTag.get(tag(attachment)) ?? [], attachment, addresses),
      ),
    );
  },

  /** @param live {@link tag} of each attachment that stays */
  stale: (view: NftReader, network: string, live: ReadonlySet<string>): NetlinkRequest[] =>
    allRules(view)
      .filter(({ comment }) => comment?.startsWith(networkTag(network)) === true)
      .filter(({ comment = '' }) => !live.has(comment.split(',')[0] ?? ''))
      .map((standing) => standing.deletion()),
};

export function referenceTraces(view: NftReader): Trace[] {
  return allRules(view).flatMap((rule) =>
    traceOf(rule, `in chain ${CHECKS.name} of table inet ${REFERENCE_TABLE.name}`),
  );
}

export const REFERENCE_TABLE: NftTable = { family: 'inet', name: 'cni_plugins_masquerade' };
const CHECKS: NftChain = { table: REFERENCE_TABLE, name: 'masq_checks' };

function allRules(view: NftReader): StandingRule[] {
  return view.hasTable(REFERENCE_TABLE) ? view.rules(CHECKS) : [];
}

function ownRules(view: NftReader, attachment: Attachment): StandingRule[] {
  return view.hasTable(REFERENCE_TABLE) ? view.rulesCommented(CHECKS, tag(attachment)) : [];
}

function isAmong(
  rules: readonly StandingRule[],
  attachment: Attachment,
  addresses: readonly string[],
): boolean {
  return addresses.every((address) => {
    const wanted = masqueradeRule(attachment, address);
    return rules.some((standing) => standing.is(wanted));
  });
}

/** Otherwise packets do not come to the rules. */
function leadsToRules(view: NftReader): boolean {
  if (!view.hasTable(REFERENCE_TABLE)) return false;
  const postrouting = view.rules({ table: REFERENCE_TABLE, name: 'postrouting' });
  return postrouting.some((standing) => standing.is({ statements: [{ kind: 'goto', chain: CHECKS.name }] }));
}
