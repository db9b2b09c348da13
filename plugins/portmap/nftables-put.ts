import type { NetlinkRequest } from '../../shared/kernel/netlink/message.ts';
import { encodeStatements } from '../../shared/packetfilter/nftables/encode.ts';
import {
  addChain,
  addElements,
  addRule,
  addSet,
  addTable,
  flushChain,
} from '../../shared/packetfilter/nftables/messages.ts';
import type { NftElement, NftRule, NftStatement } from '../../shared/packetfilter/nftables/model.ts';
import type { NftReader } from '../../shared/packetfilter/nftables/reader.ts';
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
  keyText,
  lookupRules,
  masqueradeRule,
  portsMap,
  splitShifted,
  tableOf,
} from './nftables-objects.ts';
import { claimsOf, removal, waysOf } from './nftables-removal.ts';
import { chunks, portStates, sharing, type Way } from './nftables-sharing.ts';

/** What is to be committed so that the container's ports lead to it; nothing when they do. */
export function putRequests(
  view: NftReader,
  given: Forwarding,
  warn: (line: string) => void,
): NetlinkRequest[] {
  const forwarding = { ...given, mappings: splitShifted(given.mappings) };
  const gone = new Set(deadHolders(view, forwarding, warn));
  return [
    ...skeleton(view, forwarding.family),
    ...postrouting(view, forwarding),
    ...removal(view, forwarding.family, [...gone], staleWays(view, forwarding)).requests,
    ...containerRequests(view, forwarding, gone),
  ];
}

/** Chains of dead containers that hold ports which this one wants. @throws CniError 11 when one of them lives */
export function deadHolders(view: NftReader, forwarding: Forwarding, warn: (line: string) => void): string[] {
  if (forwarding.settings.portConflict === 'reference') return [];
  return refuseOrTakeOver(forwarding, conflictsOf(view, forwarding), warn).map(({ chain }) => chain);
}

/** For CHECK: what is missing, in words. */
export function missingForwarding(view: NftReader, given: Forwarding): string | undefined {
  const forwarding = { ...given, mappings: splitShifted(given.mappings) };
  const { family } = forwarding;
  const chain = containerChain(forwarding, family);
  const where = `table ${tableOf(family).family} ${tableOf(family).name}`;
  if (!view.hasTable(tableOf(family))) return `${where} is missing`;
  if (skeleton(view, family).length > 0) return `${where} does not look up mapped ports`;
  if (postrouting(view, forwarding).length > 0) return `the rule of ${where} that masquerades is missing`;
  if (!hasRules(view, forwarding)) return `chain ${chain.name} of ${where} is not as it should be`;
  const wanted = wantedElements(forwarding);
  const states = portStates(view, family, wanted);
  const lost = wanted.find((_, at) => states[at]?.chains.includes(chain.name) !== true);
  return lost === undefined
    ? undefined
    : `${lost.key.join(' . ')} is missing from map ${lost.set.name} of ${where}`;
}

function skeleton(view: NftReader, family: Family): NetlinkRequest[] {
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
function postrouting(view: NftReader, { settings, family }: Forwarding): NetlinkRequest[] {
  if (!settings.snat) return [];
  const chain = baseChain(family, 'postrouting');
  const statements = masqueradeRule(settings.markMasqBit);
  return view.rules(chain).some((standing) => standing.is({ statements }))
    ? []
    : [addChain(chain), rule(chain, { statements })];
}

/** The chain filled anew unless it is right already, and the ways that do not lead to it yet. */
function containerRequests(
  view: NftReader,
  forwarding: Forwarding,
  gone: ReadonlySet<string>,
): NetlinkRequest[] {
  const { family } = forwarding;
  const chain = containerChain(forwarding, family);
  const wanted = wantedElements(forwarding);
  const standing = portStates(view, family, wanted);
  const states = wanted.map((element, at) => {
    const { chains = [], jumps } = standing[at] ?? {};
    return { element, state: { chains: chains.filter((one) => !gone.has(one)), jumps } };
  });
  const free = states.filter(({ state }) => state.chains.length === 0).map(({ element }) => element);
  const shared = states.filter(({ state: { chains } }) => chains.length > 0 && !chains.includes(chain.name));
  const fill = hasRules(view, forwarding)
    ? []
    : [
        addChain(chain),
        ...(view.hasChain(chain) ? [flushChain(chain)] : []),
        ...containerRules(forwarding).map((one) => rule(chain, one)),
      ];
  return [
    ...fill,
    ...additions(free),
    ...shared.flatMap(({ element, state }) => sharing(family, element, chain.name, state)),
  ];
}

/** Ways that an earlier ADD of this container made and this one does not want any more. */
function staleWays(view: NftReader, forwarding: Forwarding): Way[] {
  const { family } = forwarding;
  const { name } = containerChain(forwarding, family);
  const wanted = new Set(wantedElements(forwarding).map(keyText));
  return waysOf(family, name, claimsOf(view, family, name)).filter(({ port }) => !wanted.has(keyText(port)));
}

function hasRules(view: NftReader, forwarding: Forwarding): boolean {
  const chain = containerChain(forwarding, forwarding.family);
  const standing = view.rules(chain);
  const wanted = containerRules(forwarding);
  return standing.length === wanted.length && wanted.every((one, at) => standing[at]?.is(one) === true);
}

/** One a port: with "portConflict": "reference" a container may claim one twice itself. */
function wantedElements(forwarding: Forwarding): NftElement[] {
  const all = forwarding.mappings.flatMap((mapping) => elementsOf(forwarding, mapping));
  return [...new Map(all.map((element) => [keyText(element), element])).values()];
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
