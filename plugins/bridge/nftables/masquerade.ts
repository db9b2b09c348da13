import type { Trace } from '../../../shared/attachments/leftover.ts';
import { addressFromBytes, formatAddress } from '../../../shared/net/address.ts';
import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import type { Invocation } from '../../../shared/cni/plugin.ts';
import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import {
  changeNft,
  hasNftables,
  readNft,
  removeFromNft,
} from '../../../shared/packetfilter/nftables/change.ts';
import {
  addChain,
  addElements,
  addSet,
  addTable,
  deleteChain,
  deleteElements,
  flushChain,
  ruleRequest,
} from '../../../shared/packetfilter/nftables/messages.ts';
import type {
  NftChain,
  NftElement,
  NftRule,
  NftSet,
  NftStatement,
  NftTable,
} from '../../../shared/packetfilter/nftables/model.ts';
import type { NftReader } from '../../../shared/packetfilter/nftables/reader.ts';
import type { Attachment } from '../identity.ts';
import type { Masqueraded } from '../plan.ts';
import { referenceMasquerade, referenceTraces } from './reference.ts';
import { addressOf, cidrOf, masqueradeRule, networkTag, tag, traceOf } from './rule.ts';

/**
 * Masquerading with nftables, table inet weft_masquerade:
 *
 *     postrouting    nat, srcnat    ip daddr 224.0.0.0/4 return; ip6 daddr ff00::/8 return; ip saddr vmap @ipv4; ip6 saddr vmap @ipv6
 *     ipv4, ipv6     <address> : goto <interface>
 *     <interface>    ip saddr <address> ip daddr != <own subnet> masquerade  comment "<network>-<interface>, net: ..."
 *
 * Each interface has a chain of its own, to which a map leads: neither a call nor a packet looks at the rules of other containers. The reference
 * keeps the rules of all in one chain; what it made for an interface is complete, too, and is removed with it (reference.ts).
 */
export const nftables = {
  ready: (): void => {
    if (!hasNftables()) throw noNftables('ipMasqBackend nftables');
  },

  /** Removes rules of this attachment for other addresses. */
  add: (attachment: Attachment, { addresses }: Masqueraded): void => {
    changeNft({ what: 'set up masquerading' }, (view) => [
      ...referenceMasquerade.removal(view, attachment),
      ...staleRequests(view, attachment, addresses),
      ...missingRequests(view, [{ attachment, addresses }]),
    ]);
  },

  remove: (attachment: Attachment): void => {
    removeFromNft({ what: 'remove masquerading' }, (view) => [
      ...referenceMasquerade.removal(view, attachment),
      ...removalOf(view, chainOf(attachment)),
    ]);
  },

  missing: (attachment: Attachment, { addresses }: Masqueraded): string | undefined => {
    if (!hasNftables()) return 'this kernel has no nf_tables';
    return readNft((view) =>
      referenceMasquerade.isComplete(view, attachment, addresses)
        ? undefined
        : firstMissing(view, attachment, addresses),
    );
  },

  isPresent: (attachment: Attachment): boolean =>
    hasNftables() &&
    readNft((view) => referenceMasquerade.isPresent(view, attachment) || view.hasChain(chainOf(attachment))),

  collect: (network: string, valid: ValidAttachments): void => {
    const live = new Set(
      valid.map(({ containerID, ifname }) => tag({ network, containerId: containerID, ifname })),
    );
    removeFromNft({ what: 'remove stale masquerading' }, (view) => [
      ...referenceMasquerade.stale(view, network, live),
      ...view
        .chains(TABLE)
        .filter(({ name }) => name.startsWith(`${PREFIX}${networkTag(network)}`))
        .filter(({ name }) => !live.has(name.slice(PREFIX.length)))
        .flatMap(({ name }) => removalOf(view, { table: TABLE, name })),
    ]);
  },
};

export interface MasqueradedInterface {
  readonly attachment: Attachment;
  /** With prefix length. */
  readonly addresses: readonly string[];
}

/** For repair: the requests that complete the masquerading of these interfaces. */
export function restoreMasquerade(
  view: NftReader,
  interfaces: readonly MasqueradedInterface[],
): NetlinkRequest[] {
  const byReference = referenceMasquerade.completeAmong(view, interfaces);
  const own = interfaces.filter((one) => !byReference.has(one));
  return own.length === 0 ? [] : missingRequests(view, own);
}

/** For garbage collection: the rules whose comments name their attachments. */
export function nftMasqueradeTraces(): Trace[] {
  return readNft((view) => [
    ...referenceTraces(view),
    ...[...view.rulesOfTable(TABLE)].flatMap(([chain, rules]) =>
      rules.flatMap((rule) => traceOf(rule, `in chain ${chain} of table inet ${TABLE.name}`)),
    ),
  ]);
}

type ValidAttachments = NonNullable<Invocation<unknown>['validAttachments']>;

/** @param key of the configuration that needs it */
export function noNftables(key: string): CniError {
  return new CniError(CniCode.PluginNotAvailable, 'this kernel has no nf_tables', {
    details: `${key} needs it: load the module nf_tables`,
  });
}

export const TABLE: NftTable = { family: 'inet', name: 'weft_masquerade' };
const MAPS: Readonly<Record<'ipv4' | 'ipv6', NftSet>> = {
  ipv4: { table: TABLE, name: 'ipv4', key: ['ipv4_addr'], data: 'verdict' },
  ipv6: { table: TABLE, name: 'ipv6', key: ['ipv6_addr'], data: 'verdict' },
};
const POSTROUTING: NftChain = {
  table: TABLE,
  name: 'postrouting',
  hook: { type: 'nat', hook: 'postrouting', priority: 100 },
};
const POSTROUTING_RULES: readonly (readonly NftStatement[])[] = [
  [{ kind: 'address', side: 'daddr', cidr: '224.0.0.0/4' }, { kind: 'return' }],
  [{ kind: 'address', side: 'daddr', cidr: 'ff00::/8' }, { kind: 'return' }],
  [
    { kind: 'nfproto', family: 'ipv4' },
    { kind: 'lookup', fields: ['ip saddr'], set: MAPS.ipv4 },
  ],
  [
    { kind: 'nfproto', family: 'ipv6' },
    { kind: 'lookup', fields: ['ip6 saddr'], set: MAPS.ipv6 },
  ],
];

/** nft(8) takes no name that begins with a digit. */
const PREFIX = 'masq-';

function missingRequests(view: NftReader, interfaces: readonly MasqueradedInterface[]): NetlinkRequest[] {
  return [...(isComplete(view) ? [] : skeleton()), ...interfaces.flatMap((one) => missingOf(view, one))];
}

/** An address that another container had, whose DEL never came, is this container's now. */
function missingOf(view: NftReader, { attachment, addresses }: MasqueradedInterface): NetlinkRequest[] {
  const chain = chainOf(attachment);
  const standing = view.rules(chain);
  const rules = addresses
    .map((address) => ruleFor(attachment, address))
    .filter((rule) => !standing.some((one) => one.is(rule)));
  const elements = addresses
    .map((address) => elementFor(chain, address))
    .map((element) => ({ element, target: view.element(element.set, element.key)?.chain }))
    .filter(({ target }) => target !== chain.name);
  return [
    ...(standing.length === 0 ? [addChain(chain)] : []),
    ...rules.map((rule) => ruleRequest(rule)),
    ...elements.flatMap(({ element, target }) => [
      ...(target === undefined ? [] : [deleteElements(element.set, [element.key])]),
      addElements(element.set, [element]),
    ]),
  ];
}

/** Rules and elements of addresses that the interface no longer has. */
function staleRequests(
  view: NftReader,
  attachment: Attachment,
  addresses: readonly string[],
): NetlinkRequest[] {
  const wanted = addresses.map((address) => ruleFor(attachment, address));
  const stale = view
    .rules(chainOf(attachment))
    .filter((standing) => !wanted.some((rule) => standing.is(rule)));
  const kept = new Set(addresses.map((address) => elementFor(chainOf(attachment), address).key[0]));
  const elements = stale.flatMap((rule) => addressOf(rule) ?? []).filter((address) => !kept.has(address));
  return [
    ...stale.map((standing) => standing.deletion()),
    ...deletionsOf(view, chainOf(attachment), elements),
  ];
}

/** A chain cannot be deleted as long as an element leads to it: if there are others than its rules say, all elements are looked at. */
function removalOf(view: NftReader, chain: NftChain): NetlinkRequest[] {
  const references = view.chainReferences(chain);
  if (references === undefined) return [];
  const rules = view.rules(chain);
  const elements = deletionsOf(
    view,
    chain,
    rules.flatMap((rule) => addressOf(rule) ?? []),
  );
  const isComplete = elements.length === references - rules.length;
  return [...(isComplete ? elements : allDeletionsOf(view, chain)), flushChain(chain), deleteChain(chain)];
}

function deletionsOf(view: NftReader, chain: NftChain, addresses: readonly string[]): NetlinkRequest[] {
  return [...new Set(addresses)]
    .map((address) => elementFor(chain, `${address}/${address.includes(':') ? 128 : 32}`))
    .filter(({ set, key }) => view.element(set, key)?.chain === chain.name)
    .map(({ set, key }) => deleteElements(set, [key]));
}

function allDeletionsOf(view: NftReader, chain: NftChain): NetlinkRequest[] {
  return Object.values(MAPS).flatMap((map) =>
    view
      .elements(map)
      .filter((element) => element.chain === chain.name)
      .flatMap(({ key }) => {
        const address = addressFromBytes(key);
        return address === undefined ? [] : [deleteElements(map, [[formatAddress(address)]])];
      }),
  );
}

function firstMissing(
  view: NftReader,
  attachment: Attachment,
  addresses: readonly string[],
): string | undefined {
  if (!view.hasTable(TABLE)) return `table inet ${TABLE.name} is missing`;
  if (!isComplete(view))
    return `chain postrouting of table inet ${TABLE.name} does not lead to the containers' chains`;
  const chain = chainOf(attachment);
  const standing = view.rules(chain);
  for (const address of addresses) {
    const wanted = ruleFor(attachment, address);
    if (!standing.some((rule) => rule.is(wanted)))
      return `the nftables rule that masquerades ${address} is missing`;
    const element = elementFor(chain, address);
    if (view.element(element.set, element.key)?.chain !== chain.name)
      return `map ${element.set.name} of table inet ${TABLE.name} does not lead ${element.key[0] ?? ''} to chain ${chain.name}`;
  }
  return undefined;
}

function skeleton(): NetlinkRequest[] {
  return [
    addTable(TABLE),
    ...Object.values(MAPS).map((map, at) => addSet(map, at + 1)),
    addChain(POSTROUTING),
    flushChain(POSTROUTING),
    ...POSTROUTING_RULES.map((statements) => ruleRequest({ chain: POSTROUTING, statements })),
  ];
}

/** Rules cannot exist without the maps that they name. */
function isComplete(view: NftReader): boolean {
  const present = view.rules(POSTROUTING);
  return (
    present.length === POSTROUTING_RULES.length &&
    POSTROUTING_RULES.every((statements, at) => present[at]?.is({ statements }) === true)
  );
}

function chainOf(attachment: Attachment): NftChain {
  return { table: TABLE, name: `${PREFIX}${tag(attachment)}` };
}

function ruleFor(attachment: Attachment, address: string): NftRule {
  return { chain: chainOf(attachment), ...masqueradeRule(attachment, address) };
}

/** @param address with prefix length */
function elementFor(chain: NftChain, address: string): NftElement {
  const host = cidrOf(address).address;
  return {
    set: MAPS[host.family],
    key: [formatAddress(host)],
    data: { kind: 'goto', chain: chain.name },
  };
}
