import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';

/** One of the sets of executables that take turns. */
export interface PluginSuite {
  /** `weft`: a process for each plugin; `agent`: launchers and a node agent. */
  readonly name: 'weft' | 'agent' | 'reference';
  readonly binDir: string;
}

export type Backend = 'iptables-nft' | 'iptables-legacy' | 'nftables';

const root = resolve(import.meta.dirname, '../../..');

export const WEFT: PluginSuite = { name: 'weft', binDir: process.env['WEFT_BIN'] ?? `${root}/dist/bin` };
/** Served by the agent that agent.ts starts. */
export const AGENT: PluginSuite = { name: 'agent', binDir: `${root}/dist/agent` };
/** Debian's containernetworking-plugins. Where a folder has no consul-cni, that one's commands are run in its place. */
export const REFERENCE: PluginSuite = { name: 'reference', binDir: '/usr/lib/cni' };

export interface ListedPlugin {
  readonly type: string;
  readonly [key: string]: unknown;
}

export interface List {
  readonly name: string;
  readonly cniVersion: string;
  readonly plugins: readonly ListedPlugin[];
}

export type ListName = 'nomad' | 'nomad-dual-stack' | 'nomad-hairpin' | 'nomad-tproxy';

/** One of Nomad's four network lists. */
export function nomadList(file: ListName): List {
  return JSON.parse(readFileSync(`${root}/conflist/${file}.conflist`, 'utf8')) as List;
}

/** So that the node's own file decides for every plugin: Nomad's list names iptables for the firewall. */
export function withoutNamedBackends(list: List): List {
  const plugins = list.plugins.map((plugin) => {
    const unnamed = { ...plugin };
    delete (unnamed as { backend?: unknown }).backend;
    return unnamed;
  });
  return { ...list, plugins };
}

/** CONSUL_IPTABLES_CONFIG as Nomad sends it for the dashboard of the example; also a vector of consul-cni's commands. */
const VECTOR = 'nomad-countdash-dashboard';

interface Vector {
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly argv: readonly (readonly string[])[];
}

const vector = (
  JSON.parse(readFileSync(`${root}/test/vectors/tproxy-vectors.json`, 'utf8')) as Vector[]
).find(({ name }) => name === VECTOR);
if (vector === undefined) throw new Error(`test/vectors holds no ${VECTOR}`);

export const TPROXY_CONFIG = JSON.stringify({
  ...vector.config,
  ExcludeOutboundPorts: null,
  ExcludeOutboundCIDRs: null,
  ExcludeUIDs: null,
  NetNS: '',
  IptablesProvider: null,
});
/** What consul-cni runs at ADD, one process each, behind `nsenter --net=...`. */
export const TPROXY_COMMANDS = vector.argv;
