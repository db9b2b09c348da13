import { readFileSync, readdirSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import { CniCode, CniError } from '../shared/cni/errors.ts';
import { parseNetworkList, parsePlugin, type ListedPlugin, type NetworkList } from './network-list.ts';

/**
 * A network list from its file, with the plugins of the folder `<file's folder>/<network name>/*.conf` behind its own, unless
 * it says `loadOnlyInlinedPlugins`. Throws CniError: 5 unreadable, else as {@link parseNetworkList}.
 */
export function loadNetworkList(file: string): NetworkList {
  const list = parseNetworkList(read(file), file);
  const beside = list.onlyInlined ? [] : pluginsBeside(join(dirname(file), list.name));
  const plugins = [...list.plugins, ...beside];
  if (plugins.length === 0) {
    throw new CniError(
      CniCode.InvalidNetworkConfig,
      `invalid ${file}: it has no "plugins" and no folder "${list.name}" of them beside it`,
    );
  }
  return { ...list, plugins };
}

function pluginsBeside(folder: string): ListedPlugin[] {
  return filesOf(folder)
    .filter((name) => extname(name) === '.conf')
    .sort()
    .map((name) => join(folder, name))
    .map((file) => parsePlugin(read(file), file));
}

function filesOf(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => !entry.isDirectory())
      .map(({ name }) => name);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw new CniError(CniCode.IoFailure, `cannot read the folder ${folder}: ${(thrown as Error).message}`, {
      cause: thrown,
    });
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (thrown) {
    throw new CniError(
      CniCode.IoFailure,
      `cannot read the network list ${file}: ${(thrown as Error).message}`,
      {
        details: 'give the path of a .conflist or .conf file with --conflist',
        cause: thrown,
      },
    );
  }
}
