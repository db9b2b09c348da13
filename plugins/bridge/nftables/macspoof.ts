import { sha512 } from '../../../shared/cni/sha512.ts';
import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import {
  changeNft,
  hasNftables,
  readNft,
  removeFromNft,
} from '../../../shared/packetfilter/nftables/change.ts';
import {
  addChain,
  addTable,
  deleteChain,
  flushChain,
  ruleRequest,
} from '../../../shared/packetfilter/nftables/messages.ts';
import type { NftChain, NftRule, NftTable } from '../../../shared/packetfilter/nftables/model.ts';
import { decodeExpressions } from '../../../shared/packetfilter/nftables/decode-expressions.ts';
import { textOf } from '../../../shared/packetfilter/nftables/nlattr.ts';
import type { NftReader, StandingRule } from '../../../shared/packetfilter/nftables/reader.ts';

/**
 * Drops frames that a container sends with another source MAC than its own; names and shape of the reference
 * (pkg/link/spoofcheck.go), table bridge nat:
 *
 *     PREROUTING                     iifname <host end> jump cni-br-iface-ID     (filter, priority -300)
 *     cni-br-iface-<id>-<if>         jump cni-br-iface-ID-mac
 *     cni-br-iface-<id>-<if>-mac     ether saddr <container's MAC> return; drop
 */
export interface MacSpoofCheck {
  readonly containerId: string;
  readonly ifname: string;
}

export interface MacSpoofPort {
  /** Name of the host end. */
  readonly hostInterface: string;
  /** MAC of the container end. */
  readonly mac: string;
}

export function addMacSpoofCheck(check: MacSpoofCheck, port: MacSpoofPort): void {
  changeNft({ what: 'set up the MAC spoofing check' }, (view) => macSpoofRequests(view, check, port));
}

/** The requests that complete the check; none if it is complete. */
export function macSpoofRequests(
  view: NftReader,
  check: MacSpoofCheck,
  port: MacSpoofPort,
): NetlinkRequest[] {
  if (missing(view, check, port) === undefined) return [];
  const { own, mac } = chainsOf(check);
  return [
    addTable(TABLE),
    addChain(PREROUTING),
    ...[own, mac].flatMap((chain) => [addChain(chain), flushChain(chain)]),
    ...entries(view, check).map((standing) => standing.deletion()),
    ...rulesOf(check, port).map(ruleRequest),
  ];
}

export function removeMacSpoofCheck(check: MacSpoofCheck): void {
  removeFromNft({ what: 'remove the MAC spoofing check' }, (view) => {
    const { own, mac } = chainsOf(check);
    const present = [own, mac].filter((chain) => view.hasChain(chain));
    return [
      ...entries(view, check).map((standing) => standing.deletion()),
      ...present.map(flushChain),
      ...present.map(deleteChain),
    ];
  });
}

/** What is missing; undefined when the check is complete. */
export function missingMacSpoofCheck(check: MacSpoofCheck, port: MacSpoofPort): string | undefined {
  if (!hasNftables()) return 'this kernel has no nf_tables';
  return readNft((view) => missing(view, check, port));
}

/** Whether any part of the check exists: then ADD set it up. */
export function hasMacSpoofCheck(check: MacSpoofCheck): boolean {
  if (!hasNftables()) return false;
  const { own, mac } = chainsOf(check);
  return readNft((view) => view.hasChain(own) || view.hasChain(mac) || entries(view, check).length > 0);
}

/**
 * The checks whose host interface no longer exists. A check names no network, so GC cannot compare it with the valid attachments.
 * @param exists whether the host has an interface of this name
 */
export function staleMacSpoofChecks(exists: (hostInterface: string) => boolean): MacSpoofCheck[] {
  return readNft((view) => view.rules(PREROUTING)).flatMap((standing) => {
    const owner = /^macspoofchk-(.+)-([^-]+)$/.exec(standing.comment ?? '');
    const hostInterface = comparedText(standing);
    if (owner === null || hostInterface === undefined || exists(hostInterface)) return [];
    return [{ containerId: owner[1] ?? '', ifname: owner[2] ?? '' }];
  });
}

const TABLE: NftTable = { family: 'bridge', name: 'nat' };
const PREROUTING: NftChain = {
  table: TABLE,
  name: 'PREROUTING',
  hook: { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' },
};
/** Longest name or comment of nf_tables, without its NUL. */
const NAME_BYTES = 127;

function chainsOf({ containerId, ifname }: MacSpoofCheck): { own: NftChain; mac: NftChain } {
  const name = fitting(`cni-br-iface-${containerId}-${ifname}`, '-mac'.length);
  return { own: { table: TABLE, name }, mac: { table: TABLE, name: `${name}-mac` } };
}

function commentOf({ containerId, ifname }: MacSpoofCheck): string {
  return fitting(`macspoofchk-${containerId}-${ifname}`, 0);
}

/** Container ids have no length limit, names of chains and comments do: a long name is cut and gets a hash. */
function fitting(name: string, spare: number): string {
  const limit = NAME_BYTES - spare;
  if (Buffer.byteLength(name) <= limit) return name;
  const hash = sha512(name).toString('hex').slice(0, 16);
  return `${name.slice(0, limit - hash.length - 1)}-${hash}`;
}

function rulesOf(check: MacSpoofCheck, { hostInterface, mac: address }: MacSpoofPort): NftRule[] {
  const { own, mac } = chainsOf(check);
  const comment = commentOf(check);
  return [
    {
      chain: PREROUTING,
      statements: [
        { kind: 'interface', side: 'iifname', name: hostInterface },
        { kind: 'jump', chain: own.name },
      ],
      comment,
    },
    { chain: own, statements: [{ kind: 'jump', chain: mac.name }], comment },
    { chain: mac, statements: [{ kind: 'ether saddr', mac: address }, { kind: 'return' }], comment },
    { chain: mac, statements: [{ kind: 'drop' }], comment },
  ];
}

function missing(view: NftReader, check: MacSpoofCheck, port: MacSpoofPort): string | undefined {
  if (!view.hasTable(TABLE)) return `table bridge ${TABLE.name} is missing`;
  const { own, mac } = chainsOf(check);
  const wanted = rulesOf(check, port);
  for (const chain of [own, mac]) {
    const should = wanted.filter((rule) => rule.chain.name === chain.name);
    if (!are(view.rules(chain), should))
      return `chain ${chain.name} of table bridge nat is not as ADD created it`;
  }
  const should = wanted.filter((rule) => rule.chain === PREROUTING);
  if (are(entries(view, check), should)) return undefined;
  return `the rule of ${PREROUTING.name} in table bridge nat that checks ${port.hostInterface} is missing`;
}

function are(standing: readonly StandingRule[], wanted: readonly NftRule[]): boolean {
  return standing.length === wanted.length && wanted.every((rule, at) => standing[at]?.is(rule) === true);
}

function entries(view: NftReader, check: MacSpoofCheck): StandingRule[] {
  const comment = commentOf(check);
  return view.rules(PREROUTING).filter((standing) => standing.comment === comment);
}

/** The operand of the rule's first comparison: the interface's name. */
function comparedText({ expressions }: StandingRule): string | undefined {
  const compared = decodeExpressions(expressions).find(({ kind }) => kind === 'cmp');
  return compared?.kind === 'cmp' ? textOf(compared.value) : undefined;
}
