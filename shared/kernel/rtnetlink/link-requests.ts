import { FlagsNew } from 'netlink/dist/constants.js';
import { formatLinkMessage, MessageType, type DeviceFlags } from 'netlink/dist/rt/structs.js';
import { formatBridge, type LinkAttrs } from 'netlink/dist/rt/ifla.js';
import type { AttrStream } from 'netlink/dist/structs.js';
import { encode } from '../netlink/attributes.ts';
import type { NetlinkRequest } from '../netlink/message.ts';
import { requireMac } from '../netlink/ip.ts';
import type { BridgeSpec, LinkChange, LinkReference, VethSpec } from './link-types.ts';

/**
 * What asks the kernel to make, change, show or remove a link (linux/rtnetlink.h, linux/if_link.h). All begin with
 * struct ifinfomsg:
 *
 *    0        1     2       4            8         12            16
 *    +--------+-----+-------+------------+---------+-------------+- - - - - -
 *    | family | pad | type  | index      | flags   | change mask | attributes
 *    +--------+-----+-------+------------+---------+-------------+- - - - - -
 */

/**
 *    ifinfomsg { flags IFF_UP, change IFF_UP }
 *    [1 ADDRESS] [4 MTU] [3 IFNAME]
 *    [18 LINKINFO]
 *        [1 INFO_KIND "bridge"]
 *        [2 INFO_DATA] [7 BR_VLAN_FILTERING u8]
 */
export function createBridgeRequest(bridge: BridgeSpec): NetlinkRequest {
  const { vlanFiltering } = bridge;
  return createRequest(bridge.name, (out) => {
    putLink(out, 0, upFlags(bridge.up), linkAttributes(bridge));
    out.push(IFLA_LINKINFO, (info) => {
      info.push(IFLA_INFO_KIND, Buffer.from('bridge'));
      if (vlanFiltering !== undefined) {
        info.push(IFLA_INFO_DATA, formatBridge({ vlanFiltering: Buffer.of(Number(vlanFiltering)) }));
      }
    });
  });
}

/**
 *    ifinfomsg { flags IFF_UP, change IFF_UP }
 *    [1 ADDRESS] [4 MTU] [10 MASTER index] [3 IFNAME]
 *    [18 LINKINFO]
 *        [1 INFO_KIND "veth"]
 *        [2 INFO_DATA]
 *            [1 VETH_INFO_PEER]
 *                ifinfomsg, all zero
 *                [1 ADDRESS] [4 MTU] [3 IFNAME] [28 NET_NS_FD]
 */
export function createVethRequest(veth: VethSpec): NetlinkRequest {
  const { peer } = veth;
  return createRequest(veth.name, (out) => {
    putLink(out, 0, upFlags(veth.up), linkAttributes(veth));
    out.push(IFLA_LINKINFO, (info) => {
      info.push(IFLA_INFO_KIND, Buffer.from('veth'));
      info.push(IFLA_INFO_DATA, (data) => {
        data.push(VETH_INFO_PEER, (body) => putLink(body, 0, {}, linkAttributes(peer)));
      });
    });
  });
}

/** By index: IFNAME is the new name. By name: IFNAME says which link. */
export function setLinkRequest(link: LinkReference, change: LinkChange): NetlinkRequest {
  if (typeof link === 'string' && change.name !== undefined) {
    throw new TypeError(`link ${link}: a new name (${change.name}) can only be given to a link by its index`);
  }
  const flags = changedFlags(change);
  const name = typeof link === 'string' ? link : change.name;
  const attributes = linkAttributes({ ...change, ...(name === undefined ? {} : { name }) });
  return {
    what: `RTM_SETLINK ${link}`,
    type: MessageType.SETLINK,
    flags: 0,
    body: encode((out) => {
      putLink(out, indexOf(link), flags, attributes);
      // Without a final zero: the kernel keeps an alias by its length, and takes a length of 0 for "none".
      if (change.alias !== undefined) out.push(IFLA_IFALIAS, Buffer.from(change.alias));
    }),
  };
}

export function deleteLinkRequest(link: LinkReference): NetlinkRequest {
  const attributes = typeof link === 'string' ? { ifname: link } : {};
  return {
    what: `RTM_DELLINK ${link}`,
    type: MessageType.DELLINK,
    flags: 0,
    body: encode((out) => putLink(out, indexOf(link), {}, attributes)),
  };
}

/** Asks for one link, without its statistics. For batches: create it, then ask, in one write; see decodeLink. */
export function getLinkRequest(link: LinkReference): NetlinkRequest {
  const attributes = { extMask: SKIP_STATISTICS, ...(typeof link === 'string' ? { ifname: link } : {}) };
  return {
    what: `RTM_GETLINK ${link}`,
    type: MessageType.GETLINK,
    flags: 0,
    body: encode((out) => putLink(out, indexOf(link), {}, attributes)),
  };
}

/** [29 EXT_MASK] [10 MASTER] [18 LINKINFO [1 INFO_KIND]]: the kernel lists only matching links. */
export function listLinksRequest(filter: { master?: number; kind?: string }): NetlinkRequest {
  const { master, kind } = filter;
  const attributes = { extMask: SKIP_STATISTICS, ...(master === undefined ? {} : { master }) };
  return {
    what: 'RTM_GETLINK (list)',
    type: MessageType.GETLINK,
    flags: 0,
    body: encode((out) => {
      putLink(out, 0, {}, attributes);
      if (kind !== undefined) out.push(IFLA_LINKINFO, (info) => info.push(IFLA_INFO_KIND, Buffer.from(kind)));
    }),
  };
}

/** enum in linux/if_link.h; the package has the numbers only inside its encoders */
const IFLA_LINKINFO = 18;
const IFLA_IFALIAS = 20;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;
/** RTEXT_FILTER_SKIP_STATS, linux/rtnetlink.h, host order: a third of the answer, and reading counters takes locks. */
const SKIP_STATISTICS = Buffer.from([8, 0, 0, 0]);

interface Flags {
  readonly flags?: DeviceFlags;
  readonly change?: DeviceFlags;
}

function createRequest(name: string, fill: (out: AttrStream) => void): NetlinkRequest {
  const flags = FlagsNew.CREATE | FlagsNew.EXCL;
  return { what: `RTM_NEWLINK ${name}`, type: MessageType.NEWLINK, flags, body: encode(fill) };
}

function putLink(out: AttrStream, index: number, flags: Flags, attrs: LinkAttrs): void {
  formatLinkMessage({ kind: 'link', data: { index, ...flags }, attrs }, out);
}

function indexOf(link: LinkReference): number {
  return typeof link === 'number' ? link : 0;
}

function upFlags(up: boolean | undefined): Flags {
  return up === true ? { flags: { up: true }, change: { up: true } } : {};
}

function changedFlags({ up, promisc }: LinkChange): Flags {
  const flags: DeviceFlags = { ...(up === true && { up }), ...(promisc === true && { promisc }) };
  const change: DeviceFlags = {
    ...(up !== undefined && { up: true as const }),
    ...(promisc !== undefined && { promisc: true as const }),
  };
  return { flags, change };
}

/** In iproute2's order: the package writes attributes in the order of the object's keys. */
function linkAttributes(link: {
  readonly mac?: string;
  readonly mtu?: number;
  readonly master?: number;
  readonly name?: string;
  readonly namespaceFd?: number;
}): LinkAttrs {
  return {
    ...(link.mac !== undefined && { address: requireMac(link.mac) }),
    ...(link.mtu !== undefined && { mtu: link.mtu }),
    ...(link.master !== undefined && { master: link.master }),
    ...(link.name !== undefined && { ifname: link.name }),
    ...(link.namespaceFd !== undefined && { netNsFd: link.namespaceFd }),
  };
}
