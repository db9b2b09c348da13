import type { Attachment } from '../conflist/attachment.ts';
import { loadNetworkList } from '../conflist/load.ts';
import type { NetworkList } from '../conflist/network-list.ts';
import { parsePortMapping, type PortMapping } from '../conflist/port-mapping.ts';
import { cachedAttachments, DEFAULT_CACHE_DIR, readCachedAttachment } from '../conflist/result-cache.ts';
import {
  addNetwork,
  checkNetwork,
  collectGarbage,
  deleteNetwork,
  networkStatus,
  type Runtime,
} from '../conflist/runtime.ts';
import { renderResult } from '../shared/cni/results.ts';
import { isNetworkNamespace } from '../shared/kernel/namespace.ts';
import { pluginFolder, USUAL_FOLDER } from '../conflist/plugin-folder.ts';
import { writeAll } from '../shared/kernel/stdio.ts';
import { readOptions, UsageError } from '../shared/config/command-line.ts';

const HELP = `usage: weft run <verb> --conflist FILE [options]

Runs a network list as libcni, and so Nomad, runs it.

  add       connect a container; prints the result
  check     verify a connection made earlier
  del       disconnect, plugins in reverse order; works when the namespace is gone
  gc        drop what belongs to no valid attachment
  status    ask whether the plugins are ready (lists of version 1.1.0 and newer)

  --conflist FILE     a network list (.conflist) or a lone plugin configuration (.conf)
  --id ID             container id; Nomad takes the allocation's
  --netns PATH|NAME   network namespace; a name stands for /var/run/netns/NAME. It must exist: ip netns add NAME
  --ifname NAME       interface inside (default eth0)
  --port MAPPING      [hostIP:]hostPort[:containerPort][/tcp|/udp|/sctp], repeatable; without a protocol tcp and udp, as Nomad does.
                      check and del without --port use what add was given
  --cni-args K=V;...  CNI_ARGS, repeatable
  --bin-dir FOLDER    where the plugins are, repeatable (default: CNI_PATH, else this executable's folder, else ${USUAL_FOLDER})
  --cache-dir FOLDER  results of earlier adds (default ${DEFAULT_CACHE_DIR})
  --valid ID[/IFNAME] gc: an attachment to keep, repeatable
  --valid-present     gc: keep the cached attachments whose namespace still exists
`;

const OPTIONS = {
  conflist: { type: 'string' },
  id: { type: 'string' },
  netns: { type: 'string', default: '' },
  ifname: { type: 'string', default: 'eth0' },
  port: { type: 'string', multiple: true },
  'cni-args': { type: 'string', multiple: true },
  'bin-dir': { type: 'string', multiple: true },
  'cache-dir': { type: 'string', default: DEFAULT_CACHE_DIR },
  valid: { type: 'string', multiple: true },
  'valid-present': { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

type Options = ReturnType<typeof readOptions<typeof OPTIONS>>['values'];

const VERBS: Readonly<Record<string, (runtime: Runtime, list: NetworkList, options: Options) => string>> = {
  add: (runtime, list, options) => {
    const result = addNetwork(runtime, list, attachment(options));
    return `${JSON.stringify(renderResult(list.cniVersion, result), null, 4)}\n`;
  },
  check: (runtime, list, options) => {
    checkNetwork(runtime, list, asAdded(list, options));
    return list.disableCheck ? 'not checked: the list says "disableCheck"\n' : '';
  },
  del: (runtime, list, options) => {
    deleteNetwork(runtime, list, asAdded(list, options));
    return '';
  },
  gc: (runtime, list, options) => {
    collectGarbage(runtime, list, validAttachments(list, options));
    return list.disableGC ? 'nothing collected: the list says "disableGC"\n' : '';
  },
  status: (runtime, list) =>
    networkStatus(runtime, list) ? '' : `nobody asked: lists of version ${list.cniVersion} have no STATUS\n`,
};

export function run(argv: readonly string[]): number {
  const { values, positionals } = readOptions(argv, OPTIONS, true);
  if (values.help === true) return finish(HELP);
  const [name, ...surplus] = positionals;
  const verb = VERBS[name ?? ''];
  if (verb === undefined || !Object.hasOwn(VERBS, name ?? '')) {
    throw new UsageError(`the verb must be one of ${Object.keys(VERBS).join(', ')}, got ${name ?? 'none'}`);
  }
  if (surplus.length > 0)
    throw new UsageError(`what is "${surplus[0]}"? Only the verb stands without an option`);
  if (values.conflist === undefined) throw new UsageError('--conflist is required');
  const list = loadNetworkList(values.conflist);
  return finish(verb(runtimeOf(values), list, values));
}

function finish(text: string): number {
  writeAll(1, text);
  return 0;
}

function runtimeOf(options: Options): Runtime {
  const fromEnvironment = (process.env['CNI_PATH'] ?? '').split(':').filter((folder) => folder !== '');
  return {
    binDirs: options['bin-dir'] ?? (fromEnvironment.length > 0 ? fromEnvironment : [pluginFolder()]),
    cacheDir: options['cache-dir'],
    environment: process.env,
    warn: (line) => writeAll(2, `${line}\n`),
  };
}

function attachment(options: Options): Attachment {
  if (options.id === undefined) throw new UsageError('--id is required');
  return {
    containerId: options.id,
    netns: namespacePath(options.netns),
    ifname: options.ifname,
    args: (options['cni-args'] ?? []).flatMap(argPairs),
    // An empty list when no port is given, because that is what Nomad sends.
    capabilityArgs: { portMappings: (options.port ?? []).flatMap(mappings) },
  };
}

/** Runtimes repeat on DEL and CHECK what they gave to ADD; a person need not. */
function asAdded(list: NetworkList, options: Options): Attachment {
  const given = attachment(options);
  const added = readCachedAttachment(options['cache-dir'], list.name, given);
  if (added === undefined) return given;
  return {
    ...given,
    netns: given.netns === '' ? added.netns : given.netns,
    args: given.args.length === 0 ? added.args : given.args,
    capabilityArgs: options.port === undefined ? added.capabilityArgs : given.capabilityArgs,
  };
}

/** Without any word about what is valid, everything would be garbage: that must be said, not forgotten. */
function validAttachments(list: NetworkList, options: Options): { containerID: string; ifname: string }[] {
  const named = (options.valid ?? []).map((text) => {
    const [containerID = '', ifname = options.ifname] = text.split('/');
    return { containerID, ifname };
  });
  if (options['valid-present'] !== true) {
    if (named.length > 0) return named;
    throw new UsageError('gc needs to know what is valid: --valid ID[/IFNAME], or --valid-present');
  }
  const present = cachedAttachments(options['cache-dir'], list.name)
    .filter(({ netns }) => netns !== '' && isNetworkNamespace(netns))
    .map(({ containerId, ifname }) => ({ containerID: containerId, ifname }));
  return [...named, ...present];
}

function namespacePath(text: string): string {
  return text === '' || text.includes('/') ? text : `/var/run/netns/${text}`;
}

function argPairs(text: string): [string, string][] {
  const pairs = text.split(';').filter((pair) => pair !== '');
  return pairs.map((pair) => {
    const at = pair.indexOf('=');
    if (at < 1) throw new UsageError(`--cni-args takes KEY=VALUE;KEY=VALUE, got "${pair}"`);
    return [pair.slice(0, at), pair.slice(at + 1)];
  });
}

function mappings(text: string): PortMapping[] {
  try {
    return parsePortMapping(text);
  } catch (thrown) {
    throw new UsageError((thrown as Error).message);
  }
}
