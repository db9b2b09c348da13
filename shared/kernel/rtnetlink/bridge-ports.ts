import {
  formatBridgePort,
  formatBridgeVlanFlags,
  formatBridgeVlanInfo,
  type BridgeVlanFlags,
} from 'netlink/dist/rt/ifla.js';
import { formatLink, MessageType } from 'netlink/dist/rt/structs.js';
import { Attributes, encode, listAttributes, NESTED, type AttributeStream } from '../netlink/attributes.ts';
import type { NetlinkRequest } from '../netlink/message.ts';
import { AF_BRIDGE } from '../netlink/ip.ts';
import type { Rtnetlink } from './rtnetlink.ts';

/** Bridge port flags; an absent one stays. */
export interface BridgePortChange {
  /** IFLA_BRPORT_MODE: frames may leave by the port they arrived on. */
  readonly hairpin?: boolean;
  /** IFLA_BRPORT_ISOLATED: no frames to other isolated ports. */
  readonly isolated?: boolean;
}

/** One VID, or `vid` to `lastVid` inclusive. */
export interface PortVlan {
  readonly vid: number;
  readonly lastVid?: number;
  /** Incoming untagged frames belong to it. */
  readonly pvid?: boolean;
  /** Its frames leave untagged. */
  readonly untagged?: boolean;
}

/** @param index of the port, which must have a bridge as master */
export function setBridgePort(rtnetlink: Rtnetlink, index: number, change: BridgePortChange): void {
  rtnetlink.request(setBridgePortRequest(index, change));
}

/**
 *    ifinfomsg { family AF_BRIDGE, index of the port }
 *    [12 PROTINFO, NESTED] [4 BRPORT_MODE u8] [33 BRPORT_ISOLATED u8]
 */
export function setBridgePortRequest(index: number, { hairpin, isolated }: BridgePortChange): NetlinkRequest {
  const flags = {
    ...(hairpin !== undefined && { mode: Number(hairpin) }),
    ...(isolated !== undefined && { isolated: Buffer.of(Number(isolated)) }),
  };
  return portRequest('RTM_SETLINK', MessageType.SETLINK, index, (out) => {
    out.push(IFLA_PROTINFO | NESTED, formatBridgePort(flags));
  });
}

/** Port VLANs need a bridge with VLAN filtering; a kernel without it (CONFIG_BRIDGE_VLAN_FILTERING) answers EOPNOTSUPP. */
export function addPortVlans(rtnetlink: Rtnetlink, index: number, vlans: readonly PortVlan[]): void {
  rtnetlink.request(addPortVlansRequest(index, vlans));
}

/**
 *    ifinfomsg { family AF_BRIDGE, index of the port }
 *    [26 AF_SPEC]
 *        [2 BRIDGE_VLAN_INFO] { flags u16, vid u16 }      twice for a range: RANGE_BEGIN, RANGE_END
 */
export function addPortVlansRequest(index: number, vlans: readonly PortVlan[]): NetlinkRequest {
  return portRequest('RTM_SETLINK (VLANs)', MessageType.SETLINK, index, (out) => putVlans(out, vlans));
}

export function deletePortVlans(rtnetlink: Rtnetlink, index: number, vlans: readonly PortVlan[]): void {
  rtnetlink.request(deletePortVlansRequest(index, vlans));
}

/** As {@link addPortVlansRequest}; flags are ignored. */
export function deletePortVlansRequest(index: number, vlans: readonly PortVlan[]): NetlinkRequest {
  const bare = vlans.map(({ vid, lastVid }) => ({ vid, ...(lastVid !== undefined && { lastVid }) }));
  return portRequest('RTM_DELLINK (VLANs)', MessageType.DELLINK, index, (out) => putVlans(out, bare));
}

/** VLANs of one port, in ranges as the kernel compresses them. */
export function portVlans(rtnetlink: Rtnetlink, index: number): PortVlan[] {
  // Lists all ports: the kernel's strict parser refuses an index here.
  return rtnetlink
    .dump(
      portRequest('RTM_GETLINK (VLANs)', MessageType.GETLINK, 0, (out) =>
        out.push(IFLA_EXT_MASK, COMPRESSED_VLANS),
      ),
    )
    .filter(({ body }) => body.readInt32LE(4) === index)
    .flatMap(({ body }) => decodePortVlans(body));
}

/** The VLANs in the body of one RTM_NEWLINK of family AF_BRIDGE. */
export function decodePortVlans(body: Buffer): PortVlan[] {
  const specification = new Attributes(body, IFINFOMSG).get(IFLA_AF_SPEC);
  const vlans: PortVlan[] = [];
  let first: PortVlan | undefined;
  for (const { type, payload } of specification === undefined ? [] : listAttributes(specification)) {
    if (type !== IFLA_BRIDGE_VLAN_INFO || payload.length < 4) continue;
    const flags = payload.readUInt16LE(0);
    const vid = payload.readUInt16LE(2);
    const vlan = { vid, ...(flags & PVID && { pvid: true }), ...(flags & UNTAGGED && { untagged: true }) };
    if (flags & RANGE_BEGIN) first = vlan;
    else if (flags & RANGE_END && first !== undefined) vlans.push({ ...first, lastVid: vid });
    else vlans.push(vlan);
  }
  return vlans;
}

const IFINFOMSG = 16;
/** linux/if_link.h, linux/if_bridge.h */
const IFLA_PROTINFO = 12;
const IFLA_AF_SPEC = 26;
const IFLA_EXT_MASK = 29;
const IFLA_BRIDGE_VLAN_INFO = 2;
const PVID = 2;
const UNTAGGED = 4;
const RANGE_BEGIN = 8;
const RANGE_END = 16;
/** RTEXT_FILTER_BRVLAN_COMPRESSED, host order */
const COMPRESSED_VLANS = Buffer.from([4, 0, 0, 0]);

function portRequest(
  verb: string,
  type: number,
  index: number,
  fill: (out: AttributeStream) => void,
): NetlinkRequest {
  const body = encode((out) => {
    out.emit(formatLink({ family: AF_BRIDGE, index }));
    fill(out);
  });
  return { what: `${verb} port ${index}`, type, flags: 0, body };
}

function putVlans(out: AttributeStream, vlans: readonly PortVlan[]): void {
  out.push(IFLA_AF_SPEC, (specification) => {
    for (const { vid, lastVid, pvid, untagged } of vlans) {
      const flags: BridgeVlanFlags = {
        ...(pvid === true && { pvid }),
        ...(untagged === true && { untagged }),
      };
      const put = (info: BridgeVlanFlags, at: number): void => {
        specification.push(
          IFLA_BRIDGE_VLAN_INFO,
          formatBridgeVlanInfo({ flags: formatBridgeVlanFlags(info), vid: at }),
        );
      };
      if (lastVid === undefined || lastVid === vid) {
        put(flags, vid);
      } else {
        put({ ...flags, rangeBegin: true }, vid);
        put({ ...flags, rangeEnd: true }, lastVid);
      }
    }
  });
}
