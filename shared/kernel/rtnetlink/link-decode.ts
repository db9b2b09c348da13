import { KernelError } from '../errno.ts';
import { Attributes } from '../netlink/attributes.ts';
import { macText } from '../netlink/ip.ts';
import type { LinkInfo, OperState } from './link-types.ts';

/**
 * A link from the body of RTM_NEWLINK (struct ifinfomsg, see link-requests.ts, and IFLA_*). Only what the suite needs is
 * read, so that attributes of newer kernels, of whatever size, are no obstacle.
 * @throws KernelError EBADMSG
 */
export function decodeLink(body: Buffer): LinkInfo {
  if (body.length < IFINFOMSG) throw new KernelError('RTM_NEWLINK', 74, { detail: `${body.length} bytes` });
  const flags = body.readUInt32LE(8);
  const attributes = new Attributes(body, IFINFOMSG);
  const info = attributes.nested(IFLA_LINKINFO);
  const kind = info?.text(IFLA_INFO_KIND);
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
  };
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
const IFLA_LINKINFO = 18;
const IFLA_IFALIAS = 20;
const IFLA_PROMISCUITY = 30;
const IFLA_LINK_NETNSID = 37;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
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
