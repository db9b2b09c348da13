/**
 * The allocations that are there already. They are made by our plugins inside this process (a process each would take
 * minutes), in the form that both suites share, so that either one finds the same tables, leases and ports before it.
 */
import { mkdirSync, writeFileSync, closeSync, openSync } from 'node:fs';
import { checked, libc } from '../../../shared/kernel/libc.ts';
import { inNamespace } from '../../../shared/kernel/namespace.ts';
import { runPlugin } from '../../../shared/cni/protocol.ts';
import { plugin as bridge } from '../../../plugins/bridge/plugin.ts';
import { plugin as firewall } from '../../../plugins/firewall/plugin.ts';
import { plugin as loopback } from '../../../plugins/loopback/plugin.ts';
import { plugin as portmap } from '../../../plugins/portmap/plugin.ts';
import { sh } from './machine.ts';
import { WEFT, type List } from './suites.ts';

const PLUGINS = { loopback, bridge, firewall, portmap } as const;
/** A Linux bridge has at most 1023 ports (BR_MAX_PORTS): beyond that the crowd goes to further networks. */
const PER_BRIDGE = 900;

export interface CrowdMember {
  readonly index: number;
  readonly netns: string;
}

/** Adds members until there are `size`. @returns all of them */
export function growCrowd(list: List, present: readonly CrowdMember[], size: number): CrowdMember[] {
  const members = [...present];
  for (let index = present.length; index < size; index++) {
    const member = { index, netns: makeNamespace(`crowd-${index}`) };
    addMember(networkOf(list, Math.floor(index / PER_BRIDGE)), member);
    members.push(member);
  }
  return members;
}

/** The list itself, or the same on another bridge and subnet. */
function networkOf(list: List, number: number): List {
  if (number === 0) return list;
  const plugins = list.plugins.map((plugin) => {
    if (plugin.type !== 'bridge') return plugin;
    const ipam = plugin['ipam'] as Record<string, unknown>;
    return {
      ...plugin,
      bridge: `crowd${number}`,
      ipam: { ...ipam, ranges: [[{ subnet: `10.${100 + number}.0.0/20` }]] },
    };
  });
  return { ...list, name: `crowd${number}`, plugins };
}

function addMember(list: List, { index, netns }: CrowdMember): void {
  let prevResult: unknown;
  for (const plugin of list.plugins) {
    const implementation = PLUGINS[plugin.type as keyof typeof PLUGINS];
    if (implementation === undefined) continue;
    const { capabilities, ...config } = plugin;
    const port = 20_000 + index;
    const runtimeConfig = {
      portMappings: ['tcp', 'udp'].map((Protocol) => ({
        HostPort: port,
        ContainerPort: port,
        Protocol,
        HostIP: '',
      })),
    };
    const stdin = JSON.stringify({
      ...config,
      name: list.name,
      cniVersion: list.cniVersion,
      ...(capabilities === undefined ? {} : { runtimeConfig }),
      ...(prevResult === undefined ? {} : { prevResult }),
    });
    const environment = {
      CNI_COMMAND: 'ADD',
      CNI_CONTAINERID: `crowd-${index}`,
      CNI_NETNS: netns,
      CNI_IFNAME: 'eth0',
      CNI_PATH: WEFT.binDir,
    };
    prevResult = JSON.parse(callInProcess(implementation, environment, stdin));
  }
}

function callInProcess(
  plugin: (typeof PLUGINS)[keyof typeof PLUGINS],
  environment: Record<string, string>,
  stdin: string,
): string {
  let out = '';
  const edge = {
    environment,
    readStdin: () => stdin,
    isOwnNamespace: () => false,
    writeOut: (text: string) => void (out += text),
    writeErr: () => undefined,
  };
  // Each plugin has a configuration of its own; the protocol only hands it through.
  const code = runPlugin(plugin as never, edge);
  if (code !== 0) throw new Error(`${plugin.name} ${environment['CNI_CONTAINERID']}: ${out}`);
  return out;
}

const CLONE_NEWNET = 0x40000000;
const MS_BIND = 4096;

/** As `ip netns add`, without a process. */
export function makeNamespace(name: string): string {
  mkdirSync('/run/netns', { recursive: true });
  const path = `/run/netns/${name}`;
  writeFileSync(path, '');
  const home = openSync('/proc/thread-self/ns/net', 'r');
  try {
    checked('unshare', libc().unshare(CLONE_NEWNET));
    checked('mount', libc().mount('/proc/thread-self/ns/net', path, 'none', BigInt(MS_BIND), 0n));
  } finally {
    checked('setns', libc().setns(home, CLONE_NEWNET));
    closeSync(home);
  }
  return path;
}

/** A namespace that is thrown away again. */
export function dropNamespace(name: string): void {
  sh(`umount /run/netns/${name} && rm /run/netns/${name}`);
}

export { inNamespace };
