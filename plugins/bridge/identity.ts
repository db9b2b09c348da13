import { sha512 } from '../../shared/cni/sha512.ts';
import { randomBytes } from '../../shared/kernel/libc.ts';
import type { NetworkNamespace } from '../../shared/kernel/namespace.ts';
import { linkByIndex, linkByName, namespaceId, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { formatMac } from '../../shared/net/address.ts';

/** One interface of one container on one network. */
export interface Attachment {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string;
}

/**
 * Names and MAC addresses derived from the attachment alone, so that ADD again, DEL without a namespace or prevResult, and GC find the
 * veth pair without stored state.
 */
export interface Identity {
  /** Names for the host end, in order of preference; the next one is used only while another attachment has the former. */
  readonly hostNames: readonly string[];
  /**
   * MAC of the host end. It begins with fe, so that a bridge without a MAC of its own never takes it (a bridge takes the lowest MAC of
   * its ports). Name and MAC together identify the pair: 72 bits of the digest.
   */
  readonly hostMac: string;
  /** Default MAC of the container end; the same after ADD again, so that neighbour caches stay valid. */
  readonly containerMac: string;
  /** IFLA_IFALIAS of the host end, which `ip link` shows: `weft:<network>/<container id>/<ifname>`; '' when that is too long. */
  readonly alias: string;
}

export function identify(attachment: Attachment): Identity {
  const { network, containerId, ifname } = attachment;
  // None of the three can contain a slash, so different attachments have different keys.
  const digest = sha512(`weft bridge ${network}/${containerId}/${ifname}`);
  return {
    hostNames: Array.from(
      { length: CANDIDATES },
      (_, at) => `veth${digest.toString('hex', 4 * at, 4 * at + 4)}`,
    ),
    hostMac: formatMac(Uint8Array.of(0xfe, ...digest.subarray(MAC_AT, MAC_AT + 5))),
    containerMac: localMac(digest.subarray(MAC_AT + 5, MAC_AT + 11)),
    alias: aliasOf(attachment),
  };
}

/** The attachment that an alias names; undefined for any other text. */
export function attachmentOfAlias(alias: string | undefined): Attachment | undefined {
  if (alias === undefined || !alias.startsWith(ALIAS_PREFIX)) return undefined;
  const [network, containerId, ifname, more] = alias.slice(ALIAS_PREFIX.length).split('/');
  if (!network || !containerId || !ifname || more !== undefined) return undefined;
  return { network, containerId, ifname };
}

/** Whether a link on the host is the host end of this attachment. */
export function isHostEndOf(link: LinkInfo, identity: Identity): boolean {
  if (link.kind !== 'veth') return false;
  if (link.alias !== undefined && link.alias === identity.alias) return true;
  // ADD sets the alias one message after it creates the link; if it was killed in between, name and MAC identify the link.
  return link.alias === undefined && link.mac === identity.hostMac && identity.hostNames.includes(link.name);
}

/** Whether a link on the host has the alias of any attachment. */
export function isLabelled(link: LinkInfo): boolean {
  return attachmentOfAlias(link.alias) !== undefined;
}

/** The host end of this attachment, under any of its names. */
export function findHostEnd(host: Rtnetlink, identity: Identity): LinkInfo | undefined {
  for (const name of identity.hostNames) {
    const link = linkByName(host, name);
    if (link !== undefined && isHostEndOf(link, identity)) return link;
  }
  return undefined;
}

/**
 * The host end of a veth in a container's namespace. Indexes are unique only within a namespace, so the host end must also name that
 * namespace as its peer's.
 * @returns undefined when the other end is not in the host's namespace
 */
export function hostEndOf(
  host: Rtnetlink,
  link: LinkInfo,
  namespace: NetworkNamespace,
): LinkInfo | undefined {
  if (link.kind !== 'veth' || link.peerIndex === undefined) return undefined;
  const end = linkByIndex(host, link.peerIndex);
  if (end?.kind !== 'veth' || end.peerIndex !== link.index) return undefined;
  return end.peerNamespaceId === namespaceId(host, namespace) ? end : undefined;
}

export function isZeroMac(mac: string | undefined): boolean {
  return mac === undefined || /^[0:]+$/.test(mac);
}

/** A random, locally administered MAC address (IEEE 802c). */
export function randomMac(): string {
  return localMac(randomBytes(6));
}

/** Six bytes as a locally administered unicast address; 46 of their 48 bits stay. */
function localMac(bytes: Uint8Array): string {
  const [first = 0, ...rest] = bytes.subarray(0, 6);
  return formatMac(Uint8Array.of((first & 0xfc) | 0x02, ...rest));
}

function aliasOf({ network, containerId, ifname }: Attachment): string {
  const alias = `${ALIAS_PREFIX}${network}/${containerId}/${ifname}`;
  // linux/if.h IFALIASZ: the kernel refuses longer ones; name and MAC still identify such a pair.
  return Buffer.byteLength(alias) < 256 ? alias : '';
}

const ALIAS_PREFIX = 'weft:';
/** 32 bits collide once in about 65,000 containers on one host; not four times in a row. */
const CANDIDATES = 4;
/** Bytes of the digest after those that the names use. */
const MAC_AT = 4 * CANDIDATES;
