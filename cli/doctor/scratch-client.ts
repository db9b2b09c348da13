import { scanStore } from '../../shared/attachments/lease-files.ts';
import { openOwnNamespace, inScratchNamespace } from '../../shared/kernel/namespace.ts';
import { addAddress } from '../../shared/kernel/rtnetlink/addresses.ts';
import {
  createVeth,
  deleteLink,
  linkByName,
  setLink,
  type LinkInfo,
} from '../../shared/kernel/rtnetlink/links.ts';
import { prependRouteRequest } from '../../shared/kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import type { Range } from '../../shared/ipam/ranges.ts';
import {
  canonicalAddress,
  compareAddresses,
  formatAddress,
  offsetAddress,
  sameAddress,
  type IpAddress,
} from '../../shared/net/address.ts';
import type { Network } from './networks.ts';

/**
 * Runs `open` in a new network namespace that is connected to the bridge as an allocation is: a veth pair, an address of the network that is not
 * leased, a default route. What `open` opens keeps the namespace until it is closed; `close` then removes the pair.
 */
export function connectToBridge<T>(
  bridge: LinkInfo,
  network: Network,
  open: () => T,
): { readonly opened: T; close(): void } {
  const range = network.rangeSets.flat().find(({ subnet }) => subnet.address.family === 'ipv4');
  const address = range === undefined ? undefined : unusedAddress(range, network.store);
  if (range === undefined || address === undefined)
    throw new Error(`network ${network.name} has no free IPv4 address`);
  const name = `weftdr${process.pid % 1_000_000}`;
  const close = (): void => {
    using rtnetlink = Rtnetlink.open();
    deleteLink(rtnetlink, name);
  };
  using host = Rtnetlink.open();
  try {
    const opened = inScratchNamespace(() => {
      using here = openOwnNamespace();
      createVeth(host, {
        name,
        // Above every MAC in use: the lowest one of the ports may be the bridge's.
        mac: HIGHEST_MAC,
        mtu: bridge.mtu,
        master: bridge.index,
        up: true,
        peer: { name: 'eth0', mtu: bridge.mtu, namespaceFd: here.fd },
      });
      connect(formatAddress(address), range);
      return open();
    });
    return { opened, close };
  } catch (thrown) {
    close();
    throw thrown;
  }
}

const HIGHEST_MAC = 'fe:ff:ff:ff:ff:fe';

function connect(address: string, { subnet, gateway }: Range): void {
  using rtnetlink = Rtnetlink.open();
  const link = linkByName(rtnetlink, 'eth0');
  if (link === undefined) throw new Error('eth0 is missing');
  addAddress(rtnetlink, { index: link.index, address: `${address}/${subnet.prefix}` });
  setLink(rtnetlink, link.index, { up: true });
  const route = prependRouteRequest({
    destination: '0.0.0.0/0',
    gateway: formatAddress(gateway),
    link: link.index,
  });
  rtnetlink.request(route);
}

/** From the end of the range: allocations get theirs from its beginning. */
function unusedAddress({ first, last, gateway }: Range, store: string): IpAddress | undefined {
  const leased = new Set(
    scanStore(store).leases.flatMap(({ address }) => (address === undefined ? [] : [formatAddress(address)])),
  );
  let candidate: IpAddress | undefined = last;
  while (candidate !== undefined && compareAddresses(candidate, first) >= 0) {
    const text = canonicalAddress(formatAddress(candidate)) ?? '';
    if (!leased.has(text) && !sameAddress(candidate, gateway)) return candidate;
    candidate = offsetAddress(candidate, -1n);
  }
  return undefined;
}
