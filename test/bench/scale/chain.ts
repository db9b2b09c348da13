/** One chain of our executables for an allocation of several ports, called as libcni calls them. */
import { spawnSync } from 'node:child_process';
import { WEFT, type List, type ListedPlugin } from '../chain/suites.ts';

export interface Allocation {
  readonly id: string;
  readonly netns: string;
  /** Static ports, each sent for tcp and for udp as Nomad does. */
  readonly ports: readonly number[];
}

export const VERBS = ['ADD', 'CHECK', 'DEL'] as const;
export type Verb = (typeof VERBS)[number];

/** Milliseconds of every plugin by its name, and `chain` for all of them together. */
export type Times = Readonly<Record<string, number>>;

/** @param prevResult what the ADD gave, for the other verbs */
export function runChain(
  list: List,
  verb: Verb,
  allocation: Allocation,
  prevResult?: unknown,
): { readonly times: Times; readonly result: unknown } {
  const times: Record<string, number> = {};
  const began = process.hrtime.bigint();
  let result = prevResult;
  for (const plugin of verb === 'DEL' ? list.plugins.toReversed() : list.plugins) {
    const before = process.hrtime.bigint();
    const answer = callPlugin(plugin, verb, allocation, configOf(list, plugin, allocation, result));
    if (verb === 'ADD') result = JSON.parse(answer);
    times[plugin.type] = milliseconds(before);
  }
  return { times: { ...times, chain: milliseconds(began) }, result };
}

export function configOf(
  list: List,
  plugin: ListedPlugin,
  { ports }: Allocation,
  prevResult: unknown,
): string {
  const { capabilities, ...config } = plugin;
  const portMappings = ports.flatMap((port) =>
    ['tcp', 'udp'].map((Protocol) => ({ HostPort: port, ContainerPort: port, Protocol, HostIP: '' })),
  );
  return JSON.stringify({
    ...config,
    name: list.name,
    cniVersion: list.cniVersion,
    ...(capabilities === undefined ? {} : { runtimeConfig: { portMappings } }),
    ...(prevResult === undefined ? {} : { prevResult }),
  });
}

export function environmentOf(verb: Verb, { id, netns }: Allocation, path: string): Record<string, string> {
  return { CNI_COMMAND: verb, CNI_CONTAINERID: id, CNI_NETNS: netns, CNI_IFNAME: 'eth0', CNI_PATH: path };
}

function callPlugin({ type }: ListedPlugin, verb: Verb, allocation: Allocation, input: string): string {
  const { status, stdout, stderr, error } = spawnSync(`${WEFT.binDir}/${type}`, {
    input,
    env: { PATH: process.env['PATH'], ...environmentOf(verb, allocation, WEFT.binDir) },
    encoding: 'utf8',
  });
  if (error !== undefined && (error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  if (status !== 0) throw new Error(`${type} ${verb} ${allocation.id}: status ${status}: ${stdout}${stderr}`);
  return stdout;
}

function milliseconds(since: bigint): number {
  return Number(process.hrtime.bigint() - since) / 1e6;
}
