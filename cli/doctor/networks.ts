import { parseNetworkList } from '../../conflist/network-list.ts';
import { configure } from '../../plugins/bridge/config.ts';
import { configure as configureFirewall } from '../../plugins/firewall/config.ts';
import { readAsset } from '../../shared/assets.ts';
import { attempt } from '../../shared/kernel/files.ts';
import { configureIpam } from '../../shared/ipam/config.ts';
import type { RangeSet } from '../../shared/ipam/ranges.ts';
import { formatCidr, networkOf, type Cidr } from '../../shared/net/address.ts';
import type { InventoryEntry } from '../../shared/attachments/inventory.ts';

/** A network of this host that has a bridge. */
export interface Network {
  readonly name: string;
  readonly bridge: string;
  readonly isGateway: boolean;
  /** Empty where another IPAM plugin than host-local is in use. */
  readonly rangeSets: readonly RangeSet[];
  /** Host-local's store. */
  readonly store: string;
  /** The operators' chain of the firewall plugin. */
  readonly adminChain: string | undefined;
  /** Where its configuration was found: a cached result, a file, or Nomad's built-in list. */
  readonly source: string;
}

interface NetworkSources {
  readonly options: { readonly configDir: string };
  readonly isRoot: boolean;
  attachments(): readonly InventoryEntry[];
  names(folder: string): readonly string[];
  text(path: string): string | undefined;
}

/**
 * The networks that this host's allocations were added to, as the runtime cached their configuration; then those of the lists in Nomad's
 * cni_config_dir; and Nomad's own as it generates it by default, unless an allocation shows what it is.
 */
export function networksOf(host: NetworkSources): Network[] {
  const found = new Map<string, Network>();
  const add = (network: Network | undefined): void => {
    if (network !== undefined && !found.has(network.name)) found.set(network.name, network);
  };
  // Newest first: a list may have been edited since older allocations were added.
  if (host.isRoot) {
    for (const { network, plugins } of host.attachments().toReversed())
      add(networkOfPlugins(network, plugins, 'cached results'));
  }
  for (const file of listFiles(host)) {
    const list = attempt(() => parseNetworkList(host.text(file) ?? '', file));
    if (list !== undefined)
      add(
        networkOfPlugins(
          list.name,
          list.plugins.map(({ raw }) => raw),
          file,
        ),
      );
  }
  const builtIn = parseNetworkList(readAsset('conflist/nomad.conflist'), "Nomad's list");
  add(
    networkOfPlugins(
      builtIn.name,
      builtIn.plugins.map(({ raw }) => raw),
      "Nomad's defaults",
    ),
  );
  return [...found.values()];
}

/** What Nomad reads of its cni_config_dir. */
export function listFiles(host: Pick<NetworkSources, 'options' | 'names'>): string[] {
  const { configDir } = host.options;
  return host
    .names(configDir)
    .filter((name) => /\.(conf|conflist|json)$/.test(name))
    .map((name) => `${configDir}/${name}`);
}

/** Subnets of the network, each once. */
export function subnetsOf({ rangeSets }: Network): Cidr[] {
  const subnets = rangeSets.flat().map(({ subnet }) => networkOf(subnet));
  return [...new Map(subnets.map((subnet) => [formatCidr(subnet), subnet])).values()];
}

function networkOfPlugins(
  name: string,
  plugins: readonly Readonly<Record<string, unknown>>[],
  source: string,
): Network | undefined {
  const raw = plugins.find(({ type }) => type === 'bridge');
  if (raw === undefined) return undefined;
  const configured = configure(raw);
  if (!('settings' in configured)) return undefined;
  const { bridge, isGateway, ipamType } = configured.settings;
  const ipam = ipamType === 'host-local' ? configureIpam(raw) : undefined;
  const settings = ipam !== undefined && 'settings' in ipam ? ipam.settings : undefined;
  const firewallRaw = plugins.find(({ type }) => type === 'firewall');
  const firewall = firewallRaw === undefined ? undefined : configureFirewall(firewallRaw);
  return {
    name,
    bridge,
    isGateway,
    rangeSets: settings?.rangeSets ?? [],
    store: settings === undefined ? '' : `${settings.dataDir}/${name}`,
    adminChain: firewall !== undefined && 'settings' in firewall ? firewall.settings.adminChain : undefined,
    source,
  };
}
