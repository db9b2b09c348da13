import { addressFromBytes, formatAddress } from '../../../shared/net/address.ts';
import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import type { NftTable } from '../../../shared/packetfilter/nftables/model.ts';
import { decodeExpressions } from '../../../shared/packetfilter/nftables/decode-expressions.ts';
import type { NftReader, StandingRule } from '../../../shared/packetfilter/nftables/reader.ts';
import type { Family } from '../../../shared/packetfilter/ruleset.ts';
import type { ForwardedPorts, PortForwarding } from '../backend.ts';
import { resolveConflicts } from '../conflicts.ts';
import { HostPortIndex, hostPortsOf, type Protocol } from '../mapping.ts';
import type { Removal } from './requests.ts';

/**
 * Removes a container's rules of the reference's nftables back end: table `cni_hostport`, one rule per mapping in `hostports`, with the
 * container id as comment. On a host without that table nothing is listed.
 */
export function referenceRemoval(reader: NftReader, family: Family, containerId: string): Removal {
  const own = rulesOf(reader, family).filter(({ comment }) => comment === containerId);
  return {
    requests: own.map((rule) => rule.deletion()),
    removed: own.flatMap((rule) => forwardedPorts(rule) ?? []),
  };
}

/**
 * Removes the reference's rules that this container's ADD replaces: its own, and those of dead containers that forward one of its ports.
 * @throws CniError 11 when one of the ports is in use by a running container
 */
export function referenceReplacement(
  reader: NftReader,
  forwarding: PortForwarding,
  warn: (line: string) => void,
): NetlinkRequest[] {
  const { family, containerId, settings } = forwarding;
  const all = rulesOf(reader, family);
  const wanted = new HostPortIndex(forwarding.mappings.map(hostPortsOf));
  const conflicts = all.flatMap((rule) => {
    const used = forwardedPorts(rule);
    if (used === undefined || rule.comment === undefined || rule.comment === containerId) return [];
    if (!wanted.overlaps(used)) return [];
    return [{ ...used, owner: { containerId: rule.comment } }];
  });
  const dead = settings.portConflict === 'reference' ? [] : resolveConflicts(forwarding, conflicts, warn);
  const replaced = new Set([containerId, ...dead.map(({ owner }) => owner.containerId)]);
  return all.filter(({ comment }) => replaced.has(comment ?? '')).map((rule) => rule.deletion());
}

/** Whether the reference's rules forward the container's ports. As its own CHECK does, this counts the container's rules. */
export function referenceForwards(
  reader: NftReader,
  { family, containerId, mappings }: PortForwarding,
): boolean {
  const own = rulesOf(reader, family).filter(
    (rule) => rule.comment === containerId && forwardedPorts(rule) !== undefined,
  );
  return own.length >= mappings.length;
}

const CHAINS = ['hostports', 'hostip_hostports', 'masquerading'];

export function referenceTable(family: Family): NftTable {
  return { family: family === 'ipv4' ? 'ip' : 'ip6', name: 'cni_hostport' };
}

function rulesOf(reader: NftReader, family: Family): StandingRule[] {
  const table = referenceTable(family);
  return reader.hasTable(table) ? CHAINS.flatMap((name) => reader.rules({ table, name })) : [];
}

const PROTOCOLS: Readonly<Record<number, Protocol>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' };

/**
 * Reads `[ip daddr HOST] tcp dport PORT dnat to CONTAINER:PORT`. The operands of the comparisons differ in length: protocol 1 byte, port 2,
 * address 4 or 16. The first immediate that is an address is the DNAT target.
 */
function forwardedPorts(rule: StandingRule): ForwardedPorts | undefined {
  const expressions = decodeExpressions(rule.expressions);
  const compared = expressions.flatMap((one) => (one.kind === 'cmp' ? [one.value] : []));
  const protocol = PROTOCOLS[compared.find(({ length }) => length === 1)?.[0] ?? 0];
  const port = compared.find(({ length }) => length === 2)?.readUInt16BE();
  const host = compared.map(textOf).find((text) => text !== undefined);
  const containerAddress = expressions
    .map((one) => (one.kind === 'immediate' ? textOf(one.value) : undefined))
    .find((text) => text !== undefined);
  if (protocol === undefined || port === undefined || containerAddress === undefined) return undefined;
  return { protocol, first: port, last: port, address: host, containerAddress };
}

function textOf(bytes: Buffer): string | undefined {
  const address = addressFromBytes(bytes);
  return address === undefined ? undefined : formatAddress(address);
}
