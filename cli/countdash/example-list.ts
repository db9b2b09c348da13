import { parseNetworkList, type NetworkList } from '../../conflist/network-list.ts';
import { readAsset } from '../../shared/assets.ts';
import { NAMES } from './state.ts';

/**
 * Nomad's network list with only the network's name, the bridge's name, the subnets and the lease folder changed: all that an
 * operator may set in Nomad's configuration, and two that keep the example apart from a Nomad on the same host.
 * @param subnets one, or an IPv4 and an IPv6 one
 */
export function exampleList(subnets: readonly string[], transparent: boolean): NetworkList {
  const document = JSON.parse(readAsset(`conflist/${transparent ? 'nomad-tproxy' : 'nomad'}.conflist`)) as {
    name: string;
    plugins: {
      type: string;
      bridge?: string;
      ipam?: { ranges: unknown; routes: unknown; dataDir: string };
    }[];
  };
  document.name = NAMES.network;
  for (const plugin of document.plugins.filter(({ type }) => type === 'bridge')) {
    plugin.bridge = NAMES.bridge;
    if (plugin.ipam === undefined) continue;
    plugin.ipam.ranges = subnets.map((subnet) => [{ subnet }]);
    plugin.ipam.routes = subnets.map((subnet) => ({ dst: subnet.includes(':') ? '::/0' : '0.0.0.0/0' }));
    plugin.ipam.dataDir = `${NAMES.folder}/leases`;
  }
  return parseNetworkList(JSON.stringify(document, null, '\t'), "the example's network list");
}
