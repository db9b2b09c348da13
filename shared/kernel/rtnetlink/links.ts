import type { NetlinkMessage } from '../netlink/message.ts';
import { decodeLink } from './link-decode.ts';
import {
  createBridgeRequest,
  createVethRequest,
  deleteLinkRequest,
  getLinkRequest,
  listLinksRequest,
  setLinkRequest,
} from './link-requests.ts';
import type { BridgeSpec, LinkChange, LinkInfo, LinkReference, VethSpec } from './link-types.ts';
import type { Rtnetlink } from './rtnetlink.ts';

export type * from './link-types.ts';
export { createBridgeRequest, createVethRequest, deleteLinkRequest, getLinkRequest, setLinkRequest };

/** @returns undefined when there is none of this name */
export function linkByName(rtnetlink: Rtnetlink, name: string): LinkInfo | undefined {
  return linkFrom(rtnetlink.requestUnless(['ENODEV'], getLinkRequest(name)));
}

/** @returns undefined when there is none of this index */
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
  // Filtered by the kernel for speed, and again here: it passes over a kind that no loaded module registered.
  return rtnetlink
    .dump(listLinksRequest(filter), ['ENODEV'])
    .map(({ body }) => decodeLink(body))
    .filter(({ master }) => filter.master === undefined || master === filter.master)
    .filter(({ kind }) => filter.kind === undefined || kind === filter.kind);
}

/** One message: MAC, MTU, VLAN filtering, up. @throws KernelError EEXIST */
export function createBridge(rtnetlink: Rtnetlink, bridge: BridgeSpec): void {
  rtnetlink.request(createBridgeRequest(bridge));
}

/** One message for both ends. @throws KernelError EEXIST when either name is taken */
export function createVeth(rtnetlink: Rtnetlink, veth: VethSpec): void {
  rtnetlink.request(createVethRequest(veth));
}

/** @throws KernelError ENODEV */
export function setLink(rtnetlink: Rtnetlink, link: LinkReference, change: LinkChange): void {
  rtnetlink.request(setLinkRequest(link, change));
}

/**
 * Waits for the kernel to let go of the link (an RCU grace period, about 15 ms); the other end of a veth goes with it.
 * @returns false when there was none
 */
export function deleteLink(rtnetlink: Rtnetlink, link: LinkReference): boolean {
  return rtnetlink.requestUnless(['ENODEV'], deleteLinkRequest(link)) !== undefined;
}
