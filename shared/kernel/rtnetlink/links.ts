import type { NetworkNamespace } from '../namespace.ts';
import { Attributes, encode } from '../netlink/attributes.ts';
import type { NetlinkMessage, NetlinkRequest } from '../netlink/message.ts';
import {
  type BridgeSpec,
  type LinkChange,
  type LinkInfo,
  type LinkReference,
  type VethSpec,
  createBridgeRequest,
  createVethRequest,
  decodeLink,
  deleteLinkRequest,
  getLinkRequest,
  listLinksRequest,
  setLinkRequest,
} from './link-codec.ts';
import type { Rtnetlink } from './rtnetlink.ts';

export type * from './link-codec.ts';
export { createBridgeRequest, createVethRequest, deleteLinkRequest, getLinkRequest, setLinkRequest };

/** @returns undefined when there is no link with this name */
export function linkByName(rtnetlink: Rtnetlink, name: string): LinkInfo | undefined {
  return linkFrom(rtnetlink.requestUnless(['ENODEV'], getLinkRequest(name)));
}

/** @returns undefined when there is no link with this index */
export function linkByIndex(rtnetlink: Rtnetlink, index: number): LinkInfo | undefined {
  return linkFrom(rtnetlink.requestUnless(['ENODEV'], getLinkRequest(index)));
}

/** The link in the answer to {@link getLinkRequest}; undefined when there was none. */
export function linkFrom(messages: readonly NetlinkMessage[] | undefined): LinkInfo | undefined {
  const [answer] = messages ?? [];
  return answer === undefined ? undefined : decodeLink(answer.body);
}

/** All links, or those of one master and/or kind. */
export function links(rtnetlink: Rtnetlink, filter: { master?: number; kind?: string } = {}): LinkInfo[] {
  // The kernel filters for speed; it ignores a kind that no loaded module registered, so filter again here.
  return rtnetlink
    .dump(listLinksRequest(filter), ['ENODEV'])
    .map(({ body }) => decodeLink(body))
    .filter(({ master }) => filter.master === undefined || master === filter.master)
    .filter(({ kind }) => filter.kind === undefined || kind === filter.kind);
}

/** @throws KernelError EEXIST */
export function createBridge(rtnetlink: Rtnetlink, bridge: BridgeSpec): void {
  rtnetlink.request(createBridgeRequest(bridge));
}

/** Creates both ends. @throws KernelError EEXIST when either name is in use */
export function createVeth(rtnetlink: Rtnetlink, veth: VethSpec): void {
  rtnetlink.request(createVethRequest(veth));
}

/** @throws KernelError ENODEV */
export function setLink(rtnetlink: Rtnetlink, link: LinkReference, change: LinkChange): void {
  rtnetlink.request(setLinkRequest(link, change));
}

/**
 * Deletes a link, and with a veth also its peer. Waits for an RCU grace period (about 15 ms).
 * @returns false when there is no such link
 */
export function deleteLink(rtnetlink: Rtnetlink, link: LinkReference): boolean {
  return rtnetlink.requestUnless(['ENODEV'], deleteLinkRequest(link)) !== undefined;
}

/**
 * The id of another namespace in the socket's namespace (LinkInfo.peerNamespaceId), from linux/net_namespace.h.
 * The kernel assigns one when a link first gets a peer there.
 * @returns undefined when none is assigned, and for the socket's own namespace
 */
export function namespaceId(rtnetlink: Rtnetlink, namespace: NetworkNamespace): number | undefined {
  const [answer] = rtnetlink.request(namespaceIdRequest(namespace.fd));
  if (answer === undefined) return undefined;
  const id = new Attributes(answer.body, RTGENMSG).i32(NETNSA_NSID);
  return id === undefined || id === NETNSA_NSID_NOT_ASSIGNED ? undefined : id;
}

/**
 *    struct rtgenmsg
 *    0        1              4
 *    +--------+--------------+--------------------+
 *    | family | padding      | [3 NETNSA_FD i32]  |
 *    +--------+--------------+--------------------+
 */
export function namespaceIdRequest(fd: number): NetlinkRequest {
  const descriptor = Buffer.alloc(4);
  descriptor.writeInt32LE(fd);
  return {
    what: 'RTM_GETNSID',
    type: RTM_GETNSID,
    flags: 0,
    body: encode((out) => {
      out.emit(Buffer.alloc(RTGENMSG));
      out.push(NETNSA_FD, descriptor);
    }),
  };
}

/** linux/rtnetlink.h */
const RTM_GETNSID = 90;
const RTGENMSG = 4;
const NETNSA_NSID = 1;
const NETNSA_FD = 3;
const NETNSA_NSID_NOT_ASSIGNED = -1;
