import { decodeEntry, deleteEntryRequest, listEntriesRequest } from './conntrack-codec.ts';
import { exchange } from './netlink/conversation.ts';
import { decodeMessages, encodeRequests, type NetlinkRequest } from './netlink/message.ts';
import { addAddressRequest } from './rtnetlink/addresses.ts';
import { decodeLink } from './rtnetlink/link-decode.ts';
import {
  createBridgeRequest,
  createVethRequest,
  getLinkRequest,
  setLinkRequest,
} from './rtnetlink/link-requests.ts';
import { deleteNeighbourRequest } from './rtnetlink/neighbours.ts';
import { setBridgePortRequest } from './rtnetlink/ports.ts';
import { decodeRoute } from './rtnetlink/route-decode.ts';
import { addRouteRequest, listRoutesRequest, lookupRouteRequest } from './rtnetlink/route-requests.ts';

/**
 * Goes through every encoder and decoder once, without a kernel: what runs while the startup snapshot is built is compiled
 * in it. Touches no file, no descriptor and no node:ffi.
 */
export function prewarmKernel(): void {
  const requests = sampleRequests();
  const sent = decodeMessages(encodeRequests(requests, 1, 1));
  for (const { body } of sent.slice(0, 4)) decodeLink(body);
  for (const { body } of sent.filter(({ type }) => type === RTM_NEWROUTE)) decodeRoute(body);
  for (const { body } of sent.slice(-1)) decodeEntry(body);
  const verdicts = sent.map(({ sequence }) => ({
    type: 2,
    flags: 0,
    body: Buffer.alloc(20),
    sequence,
    port: 1,
  }));
  exchange({ send: () => 1, receive: () => verdicts }, requests);
}

const RTM_NEWROUTE = 24;
const MAC = '02:00:00:00:00:01';

function sampleRequests(): NetlinkRequest[] {
  const address = { family: 'ipv4', value: 0x0a000001n } as const;
  const route = { destination: '0.0.0.0/0', gateway: '10.0.0.1', link: 2, priority: 1, mtu: 1500 };
  const tuple = { source: undefined, destination: undefined, protocol: 17, destinationPort: 80 };
  return [
    createBridgeRequest({ name: 'b', mac: MAC, mtu: 1500, up: true }),
    createVethRequest({
      name: 'v',
      mac: MAC,
      mtu: 1500,
      master: 2,
      up: true,
      peer: { name: 'p', namespaceFd: 3 },
    }),
    getLinkRequest('b'),
    setLinkRequest(2, { up: true, alias: 'a' }),
    setBridgePortRequest(2, { hairpin: true }),
    addAddressRequest({ index: 2, address: '10.0.0.1/24', broadcast: 'computed' }),
    addAddressRequest({ index: 2, address: 'fd00::1/64', noDad: true }),
    addRouteRequest(route),
    addRouteRequest({ destination: '::/0', gateway: 'fd00::1', link: 2 }),
    listRoutesRequest('ipv4', {}),
    lookupRouteRequest(address),
    deleteNeighbourRequest({ index: 2, address: '10.0.0.1' }),
    deleteEntryRequest({ family: 2, original: tuple, reply: tuple, identity: [] }),
    listEntriesRequest(2, { protocol: 17, destinationPort: 80, destination: Buffer.of(10, 0, 0, 1) }),
  ];
}
