import { sha512 } from '../cni/sha512.ts';

/**
 * Names of chains and comments of rules as the reference suite makes them (containernetworking/plugins pkg/utils/utils.go,
 * plugins/meta/portmap), so that either suite cleans up after the other and Nomad's own clean-up finds what it looks for.
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

/** nat chain that releases of the reference before 0.7 made for masquerading mapped ports. Only ever removed. */
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
 * Network and container id out of a comment of either kind; undefined for any other text, and for one that was cut to fit.
 * Both parts are restricted to letters, digits and `_.-` by the CNI specification, so nothing in them is escaped.
 */
export function attachmentOfComment(comment: string): Attachment | undefined {
  const parts = /^(?:dnat )?name: "([\w.-]+)" id: "([\w.-]+)"$/.exec(comment);
  return parts === null ? undefined : { network: parts[1] ?? '', containerId: parts[2] ?? '' };
}

/** Whether iptables takes this for the name of a chain of somebody's making, and no part of a name is lost in saving it. */
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

/** The reference cuts to 253 and adds three dots, of which iptables keeps two: this is what stands in the kernel then. */
function fittingComment(text: string): string {
  return text.length <= COMMENT_LENGTH ? text : `${text.slice(0, COMMENT_LENGTH - 2)}..`;
}

function goQuote(text: string): string {
  return `"${text.replaceAll(/["\\]/g, '\\$&')}"`;
}
