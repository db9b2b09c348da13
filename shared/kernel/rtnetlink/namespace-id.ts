import { Attributes, encode } from '../netlink/attributes.ts';
import type { NetlinkRequest } from '../netlink/message.ts';
import type { NetworkNamespace } from '../namespace.ts';
import type { Rtnetlink } from './rtnetlink.ts';

/**
 * The number that the socket's namespace knows another one by (LinkInfo.peerNamespaceId), from linux/net_namespace.h.
 * The kernel gives one when a link first gets a peer there.
 * @returns undefined when it has none, and for the socket's own namespace
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
