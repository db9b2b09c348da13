import { parseNetworkList, type NetworkList } from '../../conflist/network-list.ts';
import { readAsset } from '../../shared/assets.ts';
import type { Options } from './options.ts';
import { NAMES } from './state.ts';

/**
 * Nomad's network list with only the network's name, the bridge's name, the subnets and the lease folder changed: all that an
 * operator may set in Nomad's configuration, and two that keep the example apart from a Nomad on the same host. A backend that the
 * user names is put where /etc/weft/weft.json would put it.
 * @param subnets one, or an IPv4 and an IPv6 one
 */
export function exampleList(
  subnets: readonly string[],
  { upstreams, backend }: Pick<Options, 'upstreams' | 'backend'>,
): NetworkList {
  const file = `conflist/${upstreams ? 'nomad' : 'nomad-tproxy'}.conflist`;
  const document = JSON.parse(readAsset(file)) as { name: string; plugins: ListedPlugin[] };
  document.name = NAMES.network;
  for (const plugin of document.plugins.filter(({ type }) => type === 'bridge')) {
    plugin.bridge = NAMES.bridge;
    if (plugin.ipam === undefined) continue;
    plugin.ipam.ranges = subnets.map((subnet) => [{ subnet }]);
    plugin.ipam.routes = subnets.map((subnet) => ({ dst: subnet.includes(':') ? '::/0' : '0.0.0.0/0' }));
    plugin.ipam.dataDir = `${NAMES.folder}/leases`;
  }
  if (backend !== undefined) for (const plugin of document.plugins) chooseBackend(plugin, backend);
  return parseNetworkList(JSON.stringify(document, null, '\t'), "the example's network list");
}

interface ListedPlugin {
  readonly type: string;
  bridge?: string;
  backend?: string;
  ipMasqBackend?: string;
  readonly ipam?: { ranges: unknown; routes: unknown; dataDir: string };
}

/** Where the list names one itself, for firewall, it stays: Nomad's own chain is in iptables, whatever the node prefers. */
function chooseBackend(plugin: ListedPlugin, backend: string): void {
  if (plugin.type === 'bridge') plugin.ipMasqBackend = backend;
  else if (plugin.type !== 'loopback') plugin.backend ??= backend;
}
