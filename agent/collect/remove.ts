import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseNetworkList, type NetworkList } from '../../conflist/network-list.ts';
import { DEFAULT_CACHE_DIR } from '../../conflist/result-cache.ts';
import { deleteNetwork, pluginFolder, type Runtime } from '../../conflist/runtime.ts';
import { configurationOfAdd } from '../../shared/attachments/cached-results.ts';
import type { InventoryEntry } from '../../shared/attachments/inventory.ts';
import { delegate } from '../../shared/cni/delegate.ts';
import { CniError } from '../../shared/cni/errors.ts';
import { runPlugin } from '../../shared/cni/protocol.ts';
import { runAll } from '../../shared/cni/undo.ts';
import { isOwnNamespace } from '../../shared/kernel/namespace.ts';
import type { LoadedPlugins } from '../call.ts';
import type { Leak } from './judge.ts';
import { interfacesOf, isStillGone } from './look.ts';

/**
 * Removes a leak by DEL of the plugins that made it: with the list, the arguments and the result that the runtime cached; where it cached none,
 * with the plugins of this suite, which find what is the container's by its name.
 * @param warn gets the lines that plugins print
 * @returns false, and nothing was changed, if the container was added again since the look, or its list has `disableGC`
 * @throws the first plugin's error
 */
export function removeLeak(leak: Leak, plugins: LoadedPlugins, warn: (line: string) => void): boolean {
  if (!isStillGone(leak)) return false;
  const calls = [...ofCachedResults(leak), ...ofOthers(leak)];
  if (calls.some(({ list }) => list.disableGC)) return false;
  const runtime: Runtime = {
    binDirs: [pluginFolder()],
    cacheDir: DEFAULT_CACHE_DIR,
    environment: process.env,
    run: inThisProcess(plugins),
    warn,
  };
  runAll(
    calls.map(({ list, ifname, args, capabilityArgs }) => () => {
      // A path from before may be another container's namespace by now.
      const attachment = { containerId: leak.containerId, netns: '', ifname, args, capabilityArgs };
      deleteNetwork(runtime, list, attachment);
    }),
    warn,
  );
  return true;
}

interface Deletion extends Pick<InventoryEntry, 'args' | 'capabilityArgs'> {
  readonly list: NetworkList;
  readonly ifname: string;
}

function ofCachedResults({ entries }: Leak): Deletion[] {
  return entries.flatMap(({ cacheFile, ifname, args, capabilityArgs }) => {
    const list = cacheFile === undefined ? undefined : cachedList(cacheFile);
    return list === undefined || ifname === undefined ? [] : [{ list, ifname, args, capabilityArgs }];
  });
}

/** Interfaces without a cached list, and leases in a data directory that none of the lists names. */
function ofOthers(leak: Leak): Deletion[] {
  const { network, entries } = leak;
  const listed = new Set(ofCachedResults(leak).map(({ ifname }) => ifname));
  return interfacesOf(leak)
    .filter((ifname) => !listed.has(ifname))
    .flatMap((ifname) => {
      const own = entries.filter((entry) => (entry.ifname ?? ifname) === ifname);
      const stores = own.flatMap(({ leaseFiles }) => leaseFiles.map((file) => dirname(dirname(file))));
      const dataDirs = stores.length === 0 ? [undefined] : [...new Set(stores)];
      return dataDirs.map((dataDir) => ({
        list: ownPlugins(network, dataDir),
        ifname,
        args: [],
        capabilityArgs: {},
      }));
    });
}

/** Undefined if the file has none that is valid. */
function cachedList(cacheFile: string): NetworkList | undefined {
  try {
    const { config } = JSON.parse(readFileSync(cacheFile, 'utf8')) as { config?: string };
    return parseNetworkList(Buffer.from(config ?? '', 'base64').toString('utf8'), cacheFile);
  } catch {
    return undefined;
  }
}

/** Everything that this suite can have made for a container. */
function ownPlugins(network: string, dataDir: string | undefined): NetworkList {
  const ipam = { type: 'host-local', ...(dataDir === undefined ? {} : { dataDir }) };
  const plugins = [
    { type: 'bridge', ipMasq: true, macspoofchk: true, ipam },
    { type: 'firewall' },
    { type: 'portmap' },
    { type: 'consul-tproxy' },
  ];
  return parseNetworkList(
    JSON.stringify({ name: network, cniVersion: '1.0.0', plugins }),
    `network ${network}`,
  );
}

/** Plugins of this suite run here: in the agent, their executables would be launchers that wait for it. */
function inThisProcess(plugins: LoadedPlugins): typeof delegate {
  return (name, command, call) => {
    const plugin = plugins.get(name);
    if (plugin === undefined) {
      delegate(name, command, call);
      return;
    }
    let [out, log] = ['', ''];
    const exitCode = runPlugin(
      { ...plugin, name },
      {
        environment: { ...call.environment, CNI_COMMAND: command },
        readStdin: () => call.stdin,
        isOwnNamespace,
        configurationOfAdd,
        writeOut: (text) => void (out += text),
        writeErr: (text) => void (log += text),
      },
    );
    for (const line of log.split('\n').filter((text) => text !== '')) call.warn(line);
    if (exitCode === 0) return;
    const { code, msg, details } = JSON.parse(out) as { code: number; msg: string; details?: string };
    throw new CniError(code, msg, details === undefined ? {} : { details });
  };
}
