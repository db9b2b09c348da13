import { FlagsNew } from 'netlink/dist/constants.js';
import { type LinkAttrs, formatBridge } from 'netlink/dist/rt/ifla.js';
import { type DeviceFlags, MessageType, formatLinkMessage } from 'netlink/dist/rt/structs.js';
import type { AttrStream } from 'netlink/dist/structs.js';
import { KernelError } from '../errno.ts';
import { Attributes, encode } from '../netlink/attributes.ts';
import { AF_INET, AF_INET6, macText, requireMac } from '../netlink/ip.ts';
import type { NetlinkRequest } from '../netlink/message.ts';

/** A link by index or by name. */
export type LinkReference = number | string;

/** A network interface as the kernel describes it (linux/if_link.h). */
export interface LinkInfo {
  readonly index: number;
  readonly name: string;
  /** IFLA_INFO_KIND: `veth`, `bridge`, ...; undefined for hardware and loopback. */
  readonly kind: string | undefined;
  /** Lower case with colons; undefined for links without one. */
  readonly mac: string | undefined;
  readonly mtu: number;
  /** IFF_*, complete (linux/if.h). */
  readonly flags: number;
  /** IFF_UP: administratively up. */
  readonly up: boolean;
  /** RFC 2863 state; what traffic needs is `up` (`unknown` for loopback). */
  readonly operState: OperState;
  /** Number of requests for promiscuous mode. */
  readonly promiscuity: number;
  /** Index of the bridge (or bond, vrf) that it is a port of. */
  readonly master: number | undefined;
  /** IFLA_LINK: index of the veth peer, in the peer's namespace. */
  readonly peerIndex: number | undefined;
  /** IFLA_LINK_NETNSID: id of the peer's namespace as seen from here; undefined when it is this one. */
  readonly peerNamespaceId: number | undefined;
  readonly alias: string | undefined;
  /** For a bridge. */
  readonly bridge: { readonly vlanFiltering: boolean } | undefined;
  /** For a port of a bridge. */
  readonly port: { readonly hairpin: boolean; readonly isolated: boolean } | undefined;
  /** net.ipv4.conf.NAME.route_localnet. Here it costs nothing; /proc/sys slows down with the number of network namespaces. */
  readonly routeLocalnet: boolean;
  /** net.ipv6.conf.NAME.accept_ra; undefined for a link without IPv6. */
  readonly acceptRa: number | undefined;
}

export type OperState = 'unknown' | 'notpresent' | 'down' | 'lowerlayerdown' | 'testing' | 'dormant' | 'up';

export interface BridgeSpec {
  readonly name: string;
  /** Stays as given; without it the bridge takes the lowest MAC of its ports. */
  readonly mac?: string;
  /** Until a port joins: then the smallest MTU of the ports applies, unless setLink has set it again. */
  readonly mtu?: number;
  readonly vlanFiltering?: boolean;
  readonly up?: boolean;
}

export interface VethSpec {
  readonly name: string;
  readonly mac?: string;
  readonly mtu?: number;
  /** Index of the bridge to join. */
  readonly master?: number;
  readonly up?: boolean;
  /** Cannot be created up: the kernel answers ENOTCONN. */
  readonly peer: {
    readonly name: string;
    readonly mac?: string;
    readonly mtu?: number;
    /** Descriptor of the namespace to create it in; default: that of the socket. */
    readonly namespaceFd?: number;
  };
}

/** What to change; an absent field stays. */
export interface LinkChange {
  readonly up?: boolean;
  readonly mtu?: number;
  readonly mac?: string;
  /** Index of the new master; 0 removes the present one. */
  readonly master?: number;
  readonly promisc?: boolean;
  /** Only with a reference by index: a reference by name uses the same attribute. */
  readonly name?: string;
  /** At most 255 bytes; empty removes it. Cannot be set on creation. */
  readonly alias?: string;
  /** net.ipv4.conf.NAME.arp_notify. When the link comes up by the same change, its addresses are not announced yet. */
  readonly arpNotify?: boolean;
}

/**
 * Requests to create, change, get or delete a link (linux/rtnetlink.h, linux/if_link.h). All begin with struct ifinfomsg:
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

/**
 * By index: IFNAME is the new name. By name: IFNAME identifies the link.
 *
 *    ifinfomsg { index, flags, change }
 *    [1 ADDRESS] [4 MTU] [10 MASTER index] [3 IFNAME] [20 IFALIAS]
 *    [26 AF_SPEC]
 *        [2 AF_INET]
 *            [1 INET_CONF]
 *                [22 ARP_NOTIFY u32]
 */
export function setLinkRequest(link: LinkReference, change: LinkChange): NetlinkRequest {
  if (typeof link === 'string' && change.name !== undefined) {
    throw new TypeError(`link ${link}: can only be renamed (to ${change.name}) by index`);
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
      // Without a final zero: the kernel stores an alias by length, and length 0 removes it.
      if (change.alias !== undefined) out.push(IFLA_IFALIAS, Buffer.from(change.alias));
      if (change.arpNotify !== undefined) {
        const value = Buffer.of(Number(change.arpNotify), 0, 0, 0);
        out.push(IFLA_AF_SPEC, (families) =>
          families.push(AF_INET, (inet) =>
            inet.push(IFLA_INET_CONF, (parameters) => parameters.push(IPV4_DEVCONF_ARP_NOTIFY, value)),
          ),
        );
      }
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

/** Gets one link, without its statistics. In a batch it may follow the request that creates the link; see decodeLink. */
export function getLinkRequest(link: LinkReference): NetlinkRequest {
  const attributes = { extMask: SKIP_STATISTICS, ...(typeof link === 'string' ? { ifname: link } : {}) };
  return {
    what: `RTM_GETLINK ${link}`,
    type: MessageType.GETLINK,
    flags: 0,
    body: encode((out) => putLink(out, indexOf(link), {}, attributes)),
    answered: true,
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

const IFLA_LINKINFO = 18;
const IFLA_IFALIAS = 20;
const IFLA_AF_SPEC = 26;
const IFLA_INET_CONF = 1;
const IFLA_INET6_CONF = 2;
/** linux/ip.h, counted from 1; linux/ipv6.h, counted from 0 */
const IPV4_DEVCONF_ARP_NOTIFY = 22;
const IPV4_DEVCONF_ROUTE_LOCALNET = 26;
const DEVCONF_ACCEPT_RA = 3;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;
/** RTEXT_FILTER_SKIP_STATS, linux/rtnetlink.h, host order. Statistics are a third of the answer, and reading them takes locks. */
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

/** In iproute2's order: the package encodes attributes in the order of the object's keys. */
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

/**
 * A link from the body of RTM_NEWLINK (struct ifinfomsg and IFLA_*). Only attributes that the suite needs are decoded, so those of newer
 * kernels, of any size, do no harm.
 * @throws KernelError EBADMSG
 */
export function decodeLink(body: Buffer): LinkInfo {
  if (body.length < IFINFOMSG) throw new KernelError('RTM_NEWLINK', 74, { detail: `${body.length} bytes` });
  const flags = body.readUInt32LE(8);
  const attributes = new Attributes(body, IFINFOMSG);
  const info = attributes.nested(IFLA_LINKINFO);
  const kind = info?.text(IFLA_INFO_KIND);
  const families = attributes.nested(IFLA_AF_SPEC);
  const parametersV4 = families?.nested(AF_INET)?.get(IFLA_INET_CONF);
  const parametersV6 = families?.nested(AF_INET6)?.get(IFLA_INET6_CONF);
  return {
    index: body.readInt32LE(4),
    name: attributes.text(IFLA_IFNAME) ?? '',
    kind,
    mac: macText(attributes.get(IFLA_ADDRESS)),
    mtu: attributes.u32(IFLA_MTU) ?? 0,
    flags,
    up: (flags & IFF_UP) !== 0,
    operState: OPER_STATES[attributes.u8(IFLA_OPERSTATE) ?? 0] ?? 'unknown',
    promiscuity: attributes.u32(IFLA_PROMISCUITY) ?? 0,
    master: attributes.u32(IFLA_MASTER),
    peerIndex: attributes.u32(IFLA_LINK),
    peerNamespaceId: attributes.i32(IFLA_LINK_NETNSID),
    alias: attributes.text(IFLA_IFALIAS),
    bridge: kind === 'bridge' ? decodeBridge(info) : undefined,
    port: info?.text(IFLA_INFO_SLAVE_KIND) === 'bridge' ? decodePort(info) : undefined,
    routeLocalnet: numberAt(parametersV4, IPV4_DEVCONF_ROUTE_LOCALNET - 1) === 1,
    acceptRa: numberAt(parametersV6, DEVCONF_ACCEPT_RA),
  };
}

/** One of the kernel parameters of a link, which the kernel sends as a list of i32. */
function numberAt(parameters: Buffer | undefined, at: number): number | undefined {
  return parameters === undefined || parameters.length < 4 * (at + 1)
    ? undefined
    : parameters.readInt32LE(4 * at);
}

const IFINFOMSG = 16;
const IFF_UP = 1;
/** linux/if_link.h */
const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_OPERSTATE = 16;
const IFLA_PROMISCUITY = 30;
const IFLA_LINK_NETNSID = 37;
const IFLA_INFO_SLAVE_KIND = 4;
const IFLA_INFO_SLAVE_DATA = 5;
const IFLA_BR_VLAN_FILTERING = 7;
const IFLA_BRPORT_MODE = 4;
const IFLA_BRPORT_ISOLATED = 33;
/** IF_OPER_*, linux/if.h, by number */
const OPER_STATES: readonly OperState[] = [
  'unknown',
  'notpresent',
  'down',
  'lowerlayerdown',
  'testing',
  'dormant',
  'up',
];

function decodeBridge(info: Attributes | undefined): LinkInfo['bridge'] {
  return { vlanFiltering: info?.nested(IFLA_INFO_DATA)?.u8(IFLA_BR_VLAN_FILTERING) === 1 };
}

function decodePort(info: Attributes): LinkInfo['port'] {
  const data = info.nested(IFLA_INFO_SLAVE_DATA);
  return { hairpin: data?.u8(IFLA_BRPORT_MODE) === 1, isolated: data?.u8(IFLA_BRPORT_ISOLATED) === 1 };
}
