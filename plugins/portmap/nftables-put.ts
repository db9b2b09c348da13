import type { NetlinkRequest } from '../../shared/kernel/netlink/message.ts';
import { encodeStatements } from '../../shared/packetfilter/nftables/encode.ts';
import { addChain, addRule, addTable, flushChain } from '../../shared/packetfilter/nftables/messages.ts';
import type { NftElement, NftRule, NftStatement } from '../../shared/packetfilter/nftables/model.ts';
import { addElements, addSet, deleteElements } from '../../shared/packetfilter/nftables/set-messages.ts';
import type { NftView } from '../../shared/packetfilter/nftables/view.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { Forwarding } from './backend.ts';
import { refuseOrTakeOver } from './holders.ts';
import { conflictsOf } from './nftables-conflicts.ts';
import {
  addressPortsMap,
  baseChain,
  containerChain,
  containerRules,
  elementsOf,
  keysOf,
  lookupRules,
  masqueradeRule,
  portsMap,
  readRecord,
  splitShifted,
  tableOf,
} from './nftables-objects.ts';
import { chunks, removal } from './nftables-removal.ts';

/** What is to be committed so that the container's ports lead to it; nothing when they do. */
export function putRequests(
  view: NftView,
  given: Forwarding,
  warn: (line: string) => void,
): NetlinkRequest[] {
  const forwarding = { ...given, mappings: splitShifted(given.mappings) };
  const conflicts = conflictsOf(view, forwarding);
  const reference = forwarding.settings.portConflict === 'reference';
  const dead = reference ? [] : refuseOrTakeOver(forwarding, conflicts, warn);
  const gone = new Set(dead.map(({ chain }) => chain));
  return [
    ...skeleton(view, forwarding.family),
    ...postrouting(view, forwarding),
    ...[...gone].flatMap((chain) => removal(view, forwarding.family, chain).requests),
    ...containerRequests(view, forwarding, gone),
  ];
}

/** For CHECK: what is missing, in words. */
export function missingForwarding(view: NftView, given: Forwarding): string | undefined {
  const forwarding = { ...given, mappings: splitShifted(given.mappings) };
  const { family } = forwarding;
  const chain = containerChain(forwarding, family);
  const where = `table ${tableOf(family).family} ${tableOf(family).name}`;
  if (!view.hasTable(tableOf(family))) return `${where} is missing`;
  if (skeleton(view, family).length > 0) return `${where} does not look up mapped ports`;
  if (postrouting(view, forwarding).length > 0) return `the rule of ${where} that masquerades is missing`;
  if (!hasRules(view, forwarding)) return `chain ${chain.name} of ${where} is not as it should be`;
  const lost = wantedElements(forwarding).find(({ set, key }) => {
    const standing = view.element(set, key)?.chain;
    return forwarding.settings.portConflict === 'reference'
      ? standing === undefined
      : standing !== chain.name;
  });
  return lost === undefined
    ? undefined
    : `${lost.key.join(' . ')} is missing from map ${lost.set.name} of ${where}`;
}

function skeleton(view: NftView, family: Family): NetlinkRequest[] {
  const table = tableOf(family);
  const lookups = (['prerouting', 'output'] as const).map((name) => baseChain(family, name));
  const complete = lookups.every((chain) => {
    const standing = view.rules(chain);
    const wanted = lookupRules(family);
    return (
      standing.length === wanted.length &&
      wanted.every((statements, at) => standing[at]?.is({ statements }) === true)
    );
  });
  if (complete) return [];
  return [
    addTable(table),
    addSet(portsMap(family), 1),
    addSet(addressPortsMap(family), 2),
    addChain(baseChain(family, 'postrouting')),
    ...lookups.flatMap((chain) => [
      addChain(chain),
      flushChain(chain),
      ...lookupRules(family).map((statements) => rule(chain, { statements })),
    ]),
  ];
}

/** One rule for each mark bit that anybody uses. */
function postrouting(view: NftView, { settings, family }: Forwarding): NetlinkRequest[] {
  if (!settings.snat) return [];
  const chain = baseChain(family, 'postrouting');
  const statements = masqueradeRule(settings.markMasqBit);
  return view.rules(chain).some((standing) => standing.is({ statements }))
    ? []
    : [rule(chain, { statements })];
}

/** The chain filled anew unless it is right already, and the elements that do not lead to it yet. */
function containerRequests(
  view: NftView,
  forwarding: Forwarding,
  gone: ReadonlySet<string>,
): NetlinkRequest[] {
  const chain = containerChain(forwarding, forwarding.family);
  const free = wantedElements(forwarding).filter(({ set, key }) => {
    const standing = view.element(set, key)?.chain;
    return standing === undefined || gone.has(standing);
  });
  const right = hasRules(view, forwarding);
  const fill = right
    ? []
    : [
        addChain(chain),
        ...(view.hasChain(chain) ? [flushChain(chain)] : []),
        ...containerRules(forwarding).map((one) => rule(chain, one)),
      ];
  return [...(right ? [] : staleElements(view, forwarding)), ...fill, ...additions(free)];
}

/** Elements that an earlier ADD of this container put there and this one does not want any more. */
function staleElements(view: NftView, forwarding: Forwarding): NetlinkRequest[] {
  const { family } = forwarding;
  const chain = containerChain(forwarding, family);
  const wanted = new Set(wantedElements(forwarding).map(({ set, key }) => `${set.name} ${key.join(' ')}`));
  const old = view.rules(chain).flatMap(({ comment }) => {
    const record = readRecord(comment);
    return record === undefined ? [] : keysOf(record, family);
  });
  return old
    .filter(
      ({ set, key }) =>
        !wanted.has(`${set.name} ${key.join(' ')}`) && view.element(set, key)?.chain === chain.name,
    )
    .map(({ set, key }) => deleteElements(set, [key]));
}

function hasRules(view: NftView, forwarding: Forwarding): boolean {
  const chain = containerChain(forwarding, forwarding.family);
  const standing = view.rules(chain);
  const wanted = containerRules(forwarding);
  return standing.length === wanted.length && wanted.every((one, at) => standing[at]?.is(one) === true);
}

function wantedElements(forwarding: Forwarding): NftElement[] {
  return forwarding.mappings.flatMap((mapping) => elementsOf(forwarding, mapping));
}

function additions(elements: readonly NftElement[]): NetlinkRequest[] {
  const bySet = Map.groupBy(elements, ({ set }) => set.name);
  return [...bySet.values()].flatMap((group) => {
    const [first] = group;
    return first === undefined ? [] : chunks(group).map((part) => addElements(first.set, part));
  });
}

function rule(
  chain: NftRule['chain'],
  { statements, comment }: { readonly statements: readonly NftStatement[]; readonly comment?: string },
): NetlinkRequest {
  return addRule(chain, { expressions: encodeStatements(chain.table.family, statements), comment }, 'last');
}
