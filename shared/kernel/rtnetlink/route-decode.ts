import { KernelError } from '../errno.ts';
import { Attributes } from '../netlink/attributes.ts';
import { AF_INET, AF_INET6, addressText, anyAddress, cidrText } from '../netlink/ip.ts';
import type { RouteInfo } from './route-types.ts';

/**
 * A route from the body of RTM_NEWROUTE (struct rtmsg, see route-requests.ts, and RTA_*).
 * @returns undefined for families other than IPv4 and IPv6
 * @throws KernelError EBADMSG
 */
export function decodeRoute(body: Buffer): RouteInfo | undefined {
  if (body.length < RTMSG) throw new KernelError('RTM_NEWROUTE', 74, { detail: `${body.length} bytes` });
  const family = body.readUInt8(0);
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  const attributes = new Attributes(body, RTMSG);
  const metrics = attributes.nested(RTA_METRICS);
  const hops = decodeHops(attributes.get(RTA_MULTIPATH));
  const link = attributes.u32(RTA_OIF) ?? hops[0]?.link;
  return {
    destination: cidrText(attributes.get(RTA_DST) ?? anyAddress(family), body.readUInt8(1)),
    family: family === AF_INET ? 'ipv4' : 'ipv6',
    gateway: gatewayOf(attributes) ?? hops[0]?.gateway,
    link,
    source: textOf(attributes.get(RTA_PREFSRC)),
    priority: attributes.u32(RTA_PRIORITY) ?? 0,
    table: attributes.u32(RTA_TABLE) ?? body.readUInt8(4),
    scope: body.readUInt8(6),
    type: body.readUInt8(7),
    protocol: body.readUInt8(5),
    mtu: metrics?.u32(RTAX_MTU),
    advmss: metrics?.u32(RTAX_ADVMSS),
    onLink: (body.readUInt32LE(8) & RTNH_F_ONLINK) !== 0,
    hops,
  };
}

const RTMSG = 12;
const RTNEXTHOP = 8;
const RTNH_F_ONLINK = 4;
/** linux/rtnetlink.h */
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_METRICS = 8;
const RTA_MULTIPATH = 9;
const RTA_TABLE = 15;
const RTA_VIA = 18;
const RTAX_MTU = 2;
const RTAX_ADVMSS = 8;

/** A gateway of the other family comes as RTA_VIA: its family in two bytes, then the address. */
function gatewayOf(attributes: Attributes): string | undefined {
  return textOf(attributes.get(RTA_GATEWAY) ?? attributes.get(RTA_VIA)?.subarray(2));
}

/** struct rtnexthop { length u16, flags u8, hops u8, index } with attributes, one behind the other */
function decodeHops(bytes: Buffer | undefined): RouteInfo['hops'] {
  const hops: { gateway: string | undefined; link: number }[] = [];
  for (let at = 0; bytes !== undefined && at + RTNEXTHOP <= bytes.length;) {
    const length = bytes.readUInt16LE(at);
    if (length < RTNEXTHOP || at + length > bytes.length) throw new KernelError('RTM_NEWROUTE', 74);
    const attributes = new Attributes(bytes.subarray(at, at + length), RTNEXTHOP);
    hops.push({ gateway: gatewayOf(attributes), link: bytes.readInt32LE(at + 4) });
    at += (length + 3) & ~3;
  }
  return hops;
}

function textOf(address: Buffer | undefined): string | undefined {
  return address === undefined ? undefined : addressText(address);
}
