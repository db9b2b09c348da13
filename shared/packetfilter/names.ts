import { sha512 } from '../cni/sha512.ts';

/**
 * Chain names and comments of the reference suite (containernetworking/plugins pkg/utils/utils.go, plugins/meta/portmap), so that each suite
 * cleans up after the other, and Nomad's own clean-up finds its rules.
 */
export interface Attachment {
  readonly network: string;
  readonly containerId: string;
}

/** nat chain of a container's masquerading: `CNI-` and 24 hex digits. Shared by all its interfaces on the network. */
export function masqueradeChain(attachment: Attachment): string {
  return hashed('CNI-', attachment);
}

/** nat chain of a container's port mappings: `CNI-DN-` and 21 hex digits. */
export function portmapChain(attachment: Attachment): string {
  return hashed('CNI-DN-', attachment);
}

/** nat chain in which the reference before 0.7 masqueraded mapped ports. Only removed. */
export function oldPortmapSourceChain(attachment: Attachment): string {
  return hashed('CNI-SN-', attachment);
}

/** `name: "net1" id: "cont1"`; Nomad's agent finds its allocations' rules by exactly this text. */
export function masqueradeComment({ network, containerId }: Attachment): string {
  return fittingComment(`name: ${goQuote(network)} id: ${goQuote(containerId)}`);
}

/** `dnat name: "net1" id: "cont1"` */
export function portmapComment(attachment: Attachment): string {
  const { network, containerId } = attachment;
  return fittingComment(`dnat name: ${goQuote(network)} id: ${goQuote(containerId)}`);
}

/**
 * Network and container id of a comment of either kind; undefined for any other text, and for one that was truncated.
 * Both parts are restricted to letters, digits and `_.-` by the CNI specification, so nothing in them is escaped.
 */
export function attachmentOfComment(comment: string): Attachment | undefined {
  const parts = /^(?:dnat )?name: "([\w.-]+)" id: "([\w.-]+)"$/.exec(comment);
  return parts === null ? undefined : { network: parts[1] ?? '', containerId: parts[2] ?? '' };
}

/** Whether iptables accepts this as the name of a user-defined chain, and iptables-save prints all of it. */
export function isChainName(text: string): boolean {
  return text.length <= CHAIN_NAME_LENGTH && /^[\w.+:@/=-]+$/.test(text) && !/^[-!]/.test(text);
}

/** linux/netfilter/x_tables.h: chain names have at most 28 characters and a NUL. */
const CHAIN_NAME_LENGTH = 28;
/** linux/netfilter/xt_comment.h XT_MAX_COMMENT_LEN without its NUL. */
const COMMENT_LENGTH = 255;

function hashed(prefix: string, { network, containerId }: Attachment): string {
  const digest = sha512(`${network}${containerId}`).toString('hex');
  return `${prefix}${digest}`.slice(0, CHAIN_NAME_LENGTH);
}

/** The reference truncates to 253 characters and adds three dots, of which iptables keeps two. */
function fittingComment(text: string): string {
  return text.length <= COMMENT_LENGTH ? text : `${text.slice(0, COMMENT_LENGTH - 2)}..`;
}

function goQuote(text: string): string {
  return `"${text.replaceAll(/["\\]/g, '\\$&')}"`;
}
