/** One chain of plugins, called as libcni calls them; nothing else is timed. */
import { spawnSync } from 'node:child_process';
import { TPROXY_COMMANDS, TPROXY_CONFIG, type List, type ListedPlugin, type PluginSuite } from './suites.ts';

export interface Allocation {
  readonly id: string;
  readonly netns: string;
  /** One static port, sent for tcp and for udp as Nomad does; none when undefined. */
  readonly port?: number;
}

export type Verb = 'ADD' | 'CHECK' | 'DEL';

/** Milliseconds of each plugin, in the order of their calls. */
export interface ChainTimes {
  readonly total: number;
  readonly plugins: ReadonlyMap<string, number>;
}

/** @param prevResult the last ADD's result, for CHECK and DEL; the new one comes back from ADD */
export function runChain(
  suite: PluginSuite,
  list: List,
  verb: Verb,
  allocation: Allocation,
  prevResult?: unknown,
): { times: ChainTimes; result: unknown } {
  const plugins = verb === 'DEL' ? list.plugins.toReversed() : list.plugins;
  const times = new Map<string, number>();
  let result = verb === 'ADD' ? undefined : prevResult;
  const began = process.hrtime.bigint();
  for (const plugin of plugins) {
    const before = process.hrtime.bigint();
    const answer = callPlugin(suite, list, plugin, verb, allocation, result);
    if (verb === 'ADD') result = answer;
    times.set(plugin.type, milliseconds(before));
  }
  return { times: { total: milliseconds(began), plugins: times }, result };
}

function callPlugin(
  suite: PluginSuite,
  list: List,
  plugin: ListedPlugin,
  verb: Verb,
  allocation: Allocation,
  prevResult: unknown,
): unknown {
  if (plugin.type === 'consul-cni' && suite.name === 'reference') {
    if (verb === 'ADD')
      for (const argv of TPROXY_COMMANDS)
        run('nsenter', [`--net=${allocation.netns}`, '--', ...argv], '', process.env);
    return prevResult;
  }
  const { capabilities, ...config } = plugin;
  const runtimeConfig =
    capabilities === undefined ? {} : { runtimeConfig: { portMappings: portMappings(allocation) } };
  const stdin = JSON.stringify({
    ...config,
    name: list.name,
    cniVersion: list.cniVersion,
    ...runtimeConfig,
    ...(prevResult === undefined ? {} : { prevResult }),
  });
  const stdout = run(`${suite.binDir}/${plugin.type}`, [], stdin, {
    PATH: process.env['PATH'],
    CNI_COMMAND: verb,
    CNI_CONTAINERID: allocation.id,
    CNI_NETNS: allocation.netns,
    CNI_IFNAME: 'eth0',
    CNI_PATH: suite.binDir,
    CNI_ARGS:
      verb === 'DEL'
        ? ''
        : `IgnoreUnknown=true;NOMAD_ALLOC_ID=${allocation.id};CONSUL_IPTABLES_CONFIG=${TPROXY_CONFIG}`,
  });
  return stdout === '' ? prevResult : JSON.parse(stdout);
}

function portMappings({ port }: Allocation): unknown[] {
  if (port === undefined) return [];
  return ['tcp', 'udp'].map((Protocol) => ({ HostPort: port, ContainerPort: port, Protocol, HostIP: '' }));
}

function run(file: string, args: readonly string[], input: string, env: NodeJS.ProcessEnv): string {
  const { status, stdout, stderr, error } = spawnSync(file, args, { input, env, encoding: 'utf8' });
  if (error !== undefined && (error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  if (status !== 0)
    throw new Error(
      `${file} ${args.join(' ')} ${env['CNI_COMMAND'] ?? ''}: status ${status}: ${stdout}${stderr}`,
    );
  return stdout;
}

function milliseconds(since: bigint): number {
  return Number(process.hrtime.bigint() - since) / 1e6;
}
