import type { Trace } from '../../../shared/attachments/trace.ts';
import {
  addressFromBytes,
  formatAddress,
  formatCidr,
  networkOf,
  parseCidr,
} from '../../../shared/net/address.ts';
import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import type { Invocation } from '../../../shared/cni/plugin.ts';
import { sha512 } from '../../../shared/cni/sha512.ts';
import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import {
  changeNft,
  hasNftables,
  removeFromNft,
  readNft,
} from '../../../shared/packetfilter/nftables/change.ts';
import {
  addChain,
  addTable,
  flushChain,
  ruleRequest,
} from '../../../shared/packetfilter/nftables/messages.ts';
import type {
  NftChain,
  NftRule,
  NftStatement,
  NftTable,
} from '../../../shared/packetfilter/nftables/model.ts';
import type { NftReader, StandingRule } from '../../../shared/packetfilter/nftables/reader.ts';
import { decodeExpressions } from '../../../shared/packetfilter/nftables/decode-expressions.ts';
import { placedRules } from '../../../shared/packetfilter/nftables/placed-rules.ts';
import type { Attachment } from '../identity.ts';
import type { Masqueraded } from '../plan.ts';

/**
 * Masquerading with nftables in the reference's shape (pkg/ip/ipmasq_nftables_linux.go), table inet cni_plugins_masquerade:
 *
 *     postrouting   nat, srcnat    ip daddr 224.0.0.0/4 return; ip6 daddr ff00::/8 return; goto masq_checks
 *     masq_checks   ip saddr <address> ip daddr != <own subnet> masquerade  comment "<network>-<interface>, net: ..."
 *
 * Each rule names its interface in the comment, so the interfaces of one container are independent of each other.
 */
export const nftables = {
  ready: (): void => {
    if (!hasNftables()) throw noNftables('ipMasqBackend nftables');
  },

  /** Removes rules of this attachment for other addresses. */
  add: (attachment: Attachment, { addresses }: Masqueraded): void => {
    changeNft({ what: 'set up masquerading' }, (view) => {
      const wanted = addresses.map((address) => masqueradeRule(attachment, address));
      const present = ownRules(view, attachment);
      const missing = wanted.filter((rule) => !present.some((standing) => standing.is(rule)));
      const stale = present.filter((standing) => !wanted.some((rule) => standing.is(rule)));
      return [
        ...(isComplete(view) ? [] : skeleton()),
        ...stale.map((standing) => standing.deletion()),
        ...missing.map((rule) => ruleRequest(rule)),
      ];
    });
  },

  remove: (attachment: Attachment): void => {
    removeFromNft({ what: 'remove masquerading' }, (view) =>
      ownRules(view, attachment).map((standing) => standing.deletion()),
    );
  },

  missing: (attachment: Attachment, { addresses }: Masqueraded): string | undefined => {
    if (!hasNftables()) return 'this kernel has no nf_tables';
    return readNft((view) => {
      if (!view.hasTable(TABLE)) return `table inet ${TABLE.name} is missing`;
      if (!isComplete(view))
        return `chain postrouting of table inet ${TABLE.name} does not lead to masq_checks`;
      const present = ownRules(view, attachment);
      const lost = addresses.find((address) => {
        const wanted = masqueradeRule(attachment, address);
        return !present.some((standing) => standing.is(wanted));
      });
      return lost === undefined ? undefined : `the nftables rule that masquerades ${lost} is missing`;
    });
  },

  isPresent: (attachment: Attachment): boolean =>
    hasNftables() && readNft((view) => view.hasTable(TABLE) && ownRules(view, attachment).length > 0),

  collect: (network: string, valid: ValidAttachments): void => {
    const live = valid.map(({ containerID, ifname }) => tag({ network, containerId: containerID, ifname }));
    removeFromNft({ what: 'remove stale masquerading' }, (view) =>
      view
        .rules(CHECKS)
        .filter(({ comment }) => comment?.startsWith(`${short(network)}-`) === true)
        .filter(({ comment }) => !live.some((one) => comment?.startsWith(one)))
        .map((standing) => standing.deletion()),
    );
  },
};

/** For repair: the requests that complete the masquerading of these interfaces, in the order of their ADDs. */
export function restoreMasquerade(
  view: NftReader,
  interfaces: readonly { readonly attachment: Attachment; readonly addresses: readonly string[] }[],
): NetlinkRequest[] {
  const wanted = interfaces.flatMap(({ attachment, addresses }) =>
    addresses.map((address) => masqueradeRule(attachment, address)),
  );
  return [...(isComplete(view) ? [] : skeleton()), ...placedRules(view.rules(CHECKS), wanted)];
}

/** For garbage collection: the rules whose comments name their attachments. */
export function nftMasqueradeTraces(): Trace[] {
  return readNft((view) => view.rules(CHECKS)).flatMap(({ comment = '', expressions }): Trace[] => {
    if (Buffer.byteLength(comment) >= COMMENT_BYTES) return [];
    const [, network, ifname, containerId] = /, net: (\S+), if: (\S+), id: (\S+)$/.exec(comment) ?? [];
    if (network === undefined || containerId === undefined) return [];
    // The container's address, then its subnet.
    const [source] = decodeExpressions(expressions).flatMap((one) =>
      one.kind === 'cmp' ? (addressFromBytes(one.value) ?? []) : [],
    );
    const addresses = source === undefined ? [] : [formatAddress(source)];
    const what = `rule for ${addresses.join()} in chain ${CHECKS.name} of table inet ${TABLE.name}`;
    return [{ network, containerId, ifname, what, namespace: 'unknown', addresses: () => addresses }];
  });
}

type ValidAttachments = NonNullable<Invocation<unknown>['validAttachments']>;

/** @param key of the configuration that needs it */
export function noNftables(key: string): CniError {
  return new CniError(CniCode.PluginNotAvailable, 'this kernel has no nf_tables', {
    details: `${key} needs it: load the module nf_tables`,
  });
}

export const TABLE: NftTable = { family: 'inet', name: 'cni_plugins_masquerade' };
const CHECKS: NftChain = { table: TABLE, name: 'masq_checks' };
const POSTROUTING: NftChain = {
  table: TABLE,
  name: 'postrouting',
  hook: { type: 'nat', hook: 'postrouting', priority: 100 },
};
const POSTROUTING_RULES: readonly (readonly NftStatement[])[] = [
  [{ kind: 'address', side: 'daddr', cidr: '224.0.0.0/4' }, { kind: 'return' }],
  [{ kind: 'address', side: 'daddr', cidr: 'ff00::/8' }, { kind: 'return' }],
  [{ kind: 'goto', chain: CHECKS.name }],
];
/** Longest comment that nft(8) accepts (NFTNL_UDATA_COMMENT_MAXLEN), without its NUL. */
const COMMENT_BYTES = 127;

function skeleton(): NetlinkRequest[] {
  return [
    addTable(TABLE),
    addChain(CHECKS),
    addChain(POSTROUTING),
    flushChain(POSTROUTING),
    ...POSTROUTING_RULES.map((statements) => ruleRequest({ chain: POSTROUTING, statements })),
  ];
}

function isComplete(view: NftReader): boolean {
  const present = view.rules(POSTROUTING);
  return (
    view.hasChain(CHECKS) &&
    present.length === POSTROUTING_RULES.length &&
    POSTROUTING_RULES.every((statements, at) => present[at]?.is({ statements }) === true)
  );
}

function masqueradeRule(attachment: Attachment, text: string): NftRule {
  const cidr = parseCidr(text);
  if (cidr === undefined) throw new Error(`not an address with prefix length: ${text}`);
  return {
    chain: CHECKS,
    comment: commentOf(attachment),
    statements: [
      { kind: 'address', side: 'saddr', cidr: formatAddress(cidr.address) },
      { kind: 'address', side: 'daddr', cidr: formatCidr(networkOf(cidr)), not: true },
      { kind: 'masquerade' },
    ],
  };
}

function ownRules(view: NftReader, attachment: Attachment): StandingRule[] {
  return view.rulesCommented(CHECKS, tag(attachment));
}

function commentOf(attachment: Attachment): string {
  const { network, containerId, ifname } = attachment;
  const text = `${tag(attachment)}, net: ${network}, if: ${ifname}, id: ${containerId}`.replaceAll('"', '');
  return Buffer.from(text)
    .subarray(0, COMMENT_BYTES)
    .toString('utf8')
    .replace(/\uFFFD+$/, '');
}

/** The reference finds the rules of one interface by this beginning of the comment. */
function tag({ network, containerId, ifname }: Attachment): string {
  return `${short(network)}-${short(`${ifname}:${containerId}`)}`;
}

function short(text: string): string {
  return sha512(text).toString('hex').slice(0, 16);
}
