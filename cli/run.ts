import { type Attachment, parsePortMapping, type PortMapping } from '../conflist/attachment.ts';
import { loadNetworkList, type NetworkList } from '../conflist/network-list.ts';
import { DEFAULT_CACHE_DIR, readCachedAttachment } from '../conflist/result-cache.ts';
import {
  addNetwork,
  checkNetwork,
  collectGarbage,
  deleteNetwork,
  networkStatus,
  presentAttachments,
  type Runtime,
  pluginFolder,
  USUAL_FOLDER,
} from '../conflist/runtime.ts';
import { renderResult } from '../shared/cni/results.ts';
import { writeAll } from '../shared/kernel/stdio.ts';
import { readOptions, UsageError } from '../shared/config/command-line.ts';

const HELP = `usage: weft run <verb> --conflist FILE [options]

Runs the plugins of a network list, as libcni and Nomad do.

  add       connect a container and print the result
  check     check an attachment made earlier
  del       disconnect a container, plugins in reverse order; the namespace may be gone
  gc        run del for every known attachment that is not valid, then GC (cniVersion 1.1.0 and newer)
  status    check that the plugins are ready (cniVersion 1.1.0 and newer)

  --conflist FILE     a network list (.conflist) or a lone plugin configuration (.conf)
  --id ID             container id; for Nomad, the allocation id
  --netns PATH|NAME   network namespace; NAME means /var/run/netns/NAME. For add it must exist: ip netns add NAME
  --ifname NAME       interface inside (default eth0)
  --port MAPPING      [hostIP:]hostPort[:containerPort][/tcp|/udp|/sctp], repeatable; default tcp and udp, as Nomad does.
                      check and del default to the mappings of add
  --cni-args K=V;...  CNI_ARGS, repeatable
  --bin-dir DIR       directory of the plugins, repeatable (default: CNI_PATH, this executable's directory, ${USUAL_FOLDER})
  --cache-dir DIR     cached results (default ${DEFAULT_CACHE_DIR})
  --valid ID[/IFNAME] gc: an attachment to keep, repeatable
  --valid-present     gc: keep the attachments whose container may be running

Exit status: 0 done; 1 a plugin failed, and its error is on stdout, or the call is impossible; 2 wrong usage
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
    const wanted = attachment(options);
    if (wanted.netns === '')
      throw new UsageError('--netns is required for add; make a namespace: ip netns add NAME');
    const result = addNetwork(runtime, list, wanted);
    return `${JSON.stringify(renderResult(list.cniVersion, result), null, 4)}\n`;
  },
  check: (runtime, list, options) => {
    checkNetwork(runtime, list, asAdded(list, options));
    return list.disableCheck ? 'not checked: the list has "disableCheck"\n' : '';
  },
  del: (runtime, list, options) => {
    deleteNetwork(runtime, list, asAdded(list, options));
    return '';
  },
  gc: (runtime, list, options) => {
    collectGarbage(runtime, list, validAttachments(list, options));
    return list.disableGC ? 'nothing collected: the list has "disableGC"\n' : '';
  },
  status: (runtime, list) =>
    networkStatus(runtime, list) ? '' : `not checked: cniVersion ${list.cniVersion} has no STATUS\n`,
};

export function run(argv: readonly string[]): number {
  const { values, positionals } = readOptions(argv, OPTIONS, true);
  if (values.help === true) return finish(HELP);
  const [name, ...surplus] = positionals;
  const verb = VERBS[name ?? ''];
  if (verb === undefined || !Object.hasOwn(VERBS, name ?? '')) {
    throw new UsageError(`the verb must be one of ${Object.keys(VERBS).join(', ')}, got ${name ?? 'none'}`);
  }
  if (surplus.length > 0) throw new UsageError(`unexpected argument "${surplus[0]}"`);
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

/** DEL and CHECK need the arguments of ADD; those that are not given come from the cached result. */
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

/** Without valid attachments, GC would remove everything: that must be requested explicitly. */
function validAttachments(list: NetworkList, options: Options): { containerID: string; ifname: string }[] {
  const named = (options.valid ?? []).map((text) => {
    const [containerID = '', ifname = options.ifname] = text.split('/');
    return { containerID, ifname };
  });
  if (options['valid-present'] !== true) {
    if (named.length > 0) return named;
    throw new UsageError('gc needs --valid ID[/IFNAME] or --valid-present');
  }
  return [...named, ...presentAttachments(options['cache-dir'], list)];
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
