import { addressFromBytes, formatAddress } from '../../shared/net/address.ts';
import type { NetlinkRequest } from '../../shared/kernel/netlink/message.ts';
import type { NftTable } from '../../shared/packetfilter/nftables/model.ts';
import { parseExpression } from '../../shared/packetfilter/nftables/decode-expressions.ts';
import { attributeOf, attributesOf } from '../../shared/packetfilter/nftables/nlattr.ts';
import type { NftReader, StandingRule } from '../../shared/packetfilter/nftables/reader.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { Forwarding, Released } from './backend.ts';
import { refuseOrTakeOver } from './holders.ts';
import { claimOf, collide, type Claim, type Protocol } from './mapping.ts';
import type { Removal } from './nftables-removal.ts';

/**
 * What the reference's nftables backend made: table `cni_hostport`, a rule for each mapping in `hostports`, all of a container's
 * found by a comment that is the bare container id. It is looked at only on a host where that table exists.
 */
export function referenceRemoval(view: NftReader, family: Family, containerId: string): Removal {
  const own = rulesOf(view, family).filter(({ comment }) => comment === containerId);
  return { requests: own.map((rule) => rule.deletion()), released: own.flatMap((rule) => claim(rule) ?? []) };
}

/**
 * Before a container's ports are made to lead to it by rules of ours: its own of the reference's go, and those of dead containers
 * that hold one of the ports.
 * @throws CniError 11 when a live container holds one of the ports
 */
export function replaceReference(
  view: NftReader,
  forwarding: Forwarding,
  warn: (line: string) => void,
): NetlinkRequest[] {
  const { family, containerId, settings } = forwarding;
  const all = rulesOf(view, family);
  const claims = forwarding.mappings.map(claimOf);
  const conflicts = all.flatMap((rule) => {
    const held = claim(rule);
    if (held === undefined || rule.comment === undefined || rule.comment === containerId) return [];
    if (!claims.some((one) => collide(one, held))) return [];
    return [{ ...held, holder: { containerId: rule.comment } }];
  });
  const dead = settings.portConflict === 'reference' ? [] : refuseOrTakeOver(forwarding, conflicts, warn);
  const gone = new Set([containerId, ...dead.map(({ holder }) => holder.containerId)]);
  return all.filter(({ comment }) => gone.has(comment ?? '')).map((rule) => rule.deletion());
}

/** Whether the reference made what is wanted; as its own CHECK does, by the number of the container's rules. */
export function referenceForwards(view: NftReader, { family, containerId, mappings }: Forwarding): boolean {
  const own = rulesOf(view, family).filter(
    (rule) => rule.comment === containerId && claim(rule) !== undefined,
  );
  return own.length >= mappings.length;
}

const CHAINS = ['hostports', 'hostip_hostports', 'masquerading'];

export function referenceTable(family: Family): NftTable {
  return { family: family === 'ipv4' ? 'ip' : 'ip6', name: 'cni_hostport' };
}

function rulesOf(view: NftReader, family: Family): StandingRule[] {
  const table = referenceTable(family);
  return view.hasTable(table) ? CHAINS.flatMap((name) => view.rules({ table, name })) : [];
}

const PROTOCOLS: Readonly<Record<number, Protocol>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' };

/**
 * `[ip daddr HOST] tcp dport PORT dnat to CONTAINER:…` as the kernel lists it: values that are compared with are told apart by their
 * length (protocol 1 byte, port 2, address 4 or 16), and the first loaded one is where the packet goes.
 */
function claim(rule: StandingRule): (Claim & Released) | undefined {
  const expressions = attributesOf(rule.expressions).map(([, element]) => parseExpression(element));
  const values = (name: string, type: number): Buffer[] =>
    expressions
      .filter((expression) => expression.name === name)
      .map(({ data }) => attributeOf(attributeOf(data, type) ?? Buffer.alloc(0), 1) ?? Buffer.alloc(0));
  const compared = values('cmp', 3);
  const protocol = PROTOCOLS[compared.find(({ length }) => length === 1)?.[0] ?? 0];
  const port = compared.find(({ length }) => length === 2)?.readUInt16BE();
  const host = compared.map(textOf).find((text) => text !== undefined);
  const containerAddress = values('immediate', 2)
    .map(textOf)
    .find((text) => text !== undefined);
  if (protocol === undefined || port === undefined || containerAddress === undefined) return undefined;
  return { protocol, first: port, last: port, address: host, containerAddress };
}

function textOf(bytes: Buffer): string | undefined {
  const address = addressFromBytes(bytes);
  return address === undefined ? undefined : formatAddress(address);
}
