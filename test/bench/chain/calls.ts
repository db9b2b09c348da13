import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { TPROXY_COMMANDS, TPROXY_CONFIG, type List, type ListedPlugin, type PluginSuite } from './suites.ts';

export const VERBS = ['ADD', 'CHECK', 'DEL'] as const;
export type Verb = (typeof VERBS)[number];

export interface Allocation {
  readonly id: string;
  readonly netns: string;
  /** Static ports, each sent for tcp and for udp as Nomad does. */
  readonly ports: readonly number[];
}

/** One program to start, as libcni starts a plugin. */
export interface Call {
  readonly plugin: string;
  readonly file: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly input: string;
}

/** @returns undefined where the suite starts nothing: consul-cni, if its commands stand for it, at CHECK and DEL */
export function callOf(
  suite: PluginSuite,
  list: List,
  plugin: ListedPlugin,
  verb: Verb,
  allocation: Allocation,
  prevResult: unknown,
): Call | undefined {
  const env = environmentOf(suite, verb, allocation);
  if (plugin.type === 'consul-cni' && !existsSync(`${suite.binDir}/consul-cni`)) {
    return verb === 'ADD' ? { plugin: plugin.type, file: consulCni(), env, input: '' } : undefined;
  }
  const input = stdinOf(list, plugin, allocation, prevResult);
  return { plugin: plugin.type, file: `${suite.binDir}/${plugin.type}`, env, input };
}

export function environmentOf(
  suite: PluginSuite,
  verb: Verb,
  { id, netns }: Allocation,
): Record<string, string> {
  const args = `IgnoreUnknown=true;NOMAD_ALLOC_ID=${id};CONSUL_IPTABLES_CONFIG=${TPROXY_CONFIG}`;
  return {
    PATH: process.env['PATH'] ?? '',
    CNI_COMMAND: verb,
    CNI_CONTAINERID: id,
    CNI_NETNS: netns,
    CNI_IFNAME: 'eth0',
    CNI_PATH: suite.binDir,
    CNI_ARGS: verb === 'DEL' ? '' : args,
  };
}

/** What libcni writes to a plugin: its entry of the list, with name, version, mappings and the result so far. */
export function stdinOf(
  list: List,
  plugin: ListedPlugin,
  allocation: Allocation,
  prevResult: unknown,
): string {
  const { capabilities, ...config } = plugin;
  return JSON.stringify({
    ...config,
    name: list.name,
    cniVersion: list.cniVersion,
    ...(capabilities === undefined
      ? {}
      : { runtimeConfig: { portMappings: portMappings(allocation) }, capabilities }),
    ...(prevResult === undefined ? {} : { prevResult }),
  });
}

/** The runtime's argument of this name. */
export function portMappings({ ports }: Allocation): unknown[] {
  return ports.flatMap((port) =>
    ['tcp', 'udp'].map((Protocol) => ({ HostPort: port, ContainerPort: port, Protocol, HostIP: '' })),
  );
}

const SCRIPT = '/run/bench-consul-cni';

/**
 * Stands for consul-cni, which Debian does not have: its commands one after the other, each behind nsenter as it runs them, by a shell,
 * which starts faster than consul-cni itself and as fast as it starts each of them.
 */
function consulCni(): string {
  if (!existsSync(SCRIPT)) {
    const lines = TPROXY_COMMANDS.map((argv) => `nsenter --net="$CNI_NETNS" -- ${argv.join(' ')}`);
    writeFileSync(SCRIPT, ['#!/bin/sh', 'set -e', ...lines, ''].join('\n'));
    chmodSync(SCRIPT, 0o755);
  }
  return SCRIPT;
}
