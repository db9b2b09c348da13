import { sha512 } from '../../../shared/cni/sha512.ts';
import { changeNft, readNft } from '../../../shared/packetfilter/nftables/change.ts';
import {
  addChain,
  addTable,
  deleteChain,
  flushChain,
  ruleRequest,
} from '../../../shared/packetfilter/nftables/messages.ts';
import type { NftChain, NftRule, NftTable } from '../../../shared/packetfilter/nftables/model.ts';
import { parseExpression } from '../../../shared/packetfilter/nftables/decode-expressions.ts';
import { attributeOf, attributesOf, textOf } from '../../../shared/packetfilter/nftables/nlattr.ts';
import type { NftReader, StandingRule } from '../../../shared/packetfilter/nftables/reader.ts';

/**
 * Frames that a container sends under another MAC than its own are dropped where they enter the bridge; names and shape
 * of the reference (pkg/link/spoofcheck.go), table bridge nat:
 *
 *     PREROUTING                     iifname <host's end> jump cni-br-iface-ID     (filter, priority -300)
 *     cni-br-iface-<id>-<if>         jump cni-br-iface-ID-mac
 *     cni-br-iface-<id>-<if>-mac     ether saddr <container's MAC> return; drop
 */
export interface MacSpoofCheck {
  readonly containerId: string;
  readonly ifname: string;
}

export interface MacSpoofPort {
  /** Name of the host's end. */
  readonly hostInterface: string;
  /** MAC of the container's end. */
  readonly mac: string;
}

export function putMacSpoofCheck(check: MacSpoofCheck, port: MacSpoofPort): void {
  changeNft({ what: 'set up the MAC spoofing check' }, (view) => {
    if (missing(view, check, port) === undefined) return [];
    const { own, mac } = chainsOf(check);
    return [
      addTable(TABLE),
      addChain(PREROUTING),
      ...[own, mac].flatMap((chain) => [addChain(chain), flushChain(chain)]),
      ...entries(view, check).map((standing) => standing.deletion()),
      ...rulesOf(check, port).map(ruleRequest),
    ];
  });
}

export function removeMacSpoofCheck(check: MacSpoofCheck): void {
  changeNft({ what: 'remove the MAC spoofing check' }, (view) => {
    const { own, mac } = chainsOf(check);
    const present = [own, mac].filter((chain) => view.hasChain(chain));
    return [
      ...entries(view, check).map((standing) => standing.deletion()),
      ...present.map(flushChain),
      ...present.map(deleteChain),
    ];
  });
}

/** For CHECK: what is missing, in words, or undefined. */
export function missingMacSpoofCheck(check: MacSpoofCheck, port: MacSpoofPort): string | undefined {
  return readNft((view) => missing(view, check, port));
}

/**
 * The checks whose host interface is not there any more. They name no network: that the interface is gone is the only
 * thing that makes one certainly garbage.
 * @param exists whether the host has an interface of this name
 */
export function macSpoofGarbage(exists: (hostInterface: string) => boolean): MacSpoofCheck[] {
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
/** What nf_tables keeps of a name or a comment, without its NUL. */
const NAME_BYTES = 127;

function chainsOf({ containerId, ifname }: MacSpoofCheck): { own: NftChain; mac: NftChain } {
  const name = fitting(`cni-br-iface-${containerId}-${ifname}`, '-mac'.length);
  return { own: { table: TABLE, name }, mac: { table: TABLE, name: `${name}-mac` } };
}

function commentOf({ containerId, ifname }: MacSpoofCheck): string {
  return fitting(`macspoofchk-${containerId}-${ifname}`, 0);
}

/** Container ids have no length limit, names of chains and comments do: a long one keeps its head and gets a hash. */
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
      return `chain ${chain.name} of table bridge nat is not as it should be`;
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

/** The text that the rule's first comparison wants: the interface's name. */
function comparedText({ expressions }: StandingRule): string | undefined {
  const compared = attributesOf(expressions)
    .map(([, element]) => parseExpression(element))
    .find(({ name }) => name === 'cmp');
  const value = compared && attributeOf(attributeOf(compared.data, 3) ?? Buffer.alloc(0), 1);
  return value && textOf(value);
}
