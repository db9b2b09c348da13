/**
 * The allocations that are there already. They are made by our plugins inside this process (a process each would take
 * minutes), in the form that both suites share, so that either one finds the same tables, leases and ports before it.
 */
import { mkdirSync, writeFileSync, closeSync, openSync } from 'node:fs';
import { checked, libc } from '../../../shared/kernel/libc.ts';
import type { Allocation } from './calls.ts';
import { chainInProcess } from './in-process.ts';
import { sh } from './machine.ts';
import type { List } from './suites.ts';

/** A Linux bridge has at most 1023 ports (BR_MAX_PORTS): beyond that the crowd goes to further networks. */
const PER_BRIDGE = 900;

export interface CrowdMember {
  readonly index: number;
  readonly netns: string;
}

/**
 * Adds members until there are `size`.
 * @param added called after each ADD with what a runtime would cache
 * @returns all of them
 */
export function growCrowd(
  list: List,
  present: readonly CrowdMember[],
  size: number,
  added: (list: List, allocation: Allocation, result: unknown) => void = () => undefined,
): CrowdMember[] {
  const members = [...present];
  for (let index = present.length; index < size; index++) {
    const member = { index, netns: makeNamespace(`crowd-${index}`) };
    const allocation = { id: `crowd-${index}`, netns: member.netns, ports: [20_000 + index] };
    const network = networkOf(list, Math.floor(index / PER_BRIDGE));
    added(network, allocation, chainInProcess(network, 'ADD', allocation));
    members.push(member);
  }
  return members;
}

/**
 * The list itself, or the same on another bridge and subnet. Without consul-cni, whose rules are in the members' own namespaces, which
 * no other call looks at.
 */
function networkOf(list: List, number: number): List {
  const plugins = list.plugins.filter(({ type }) => type !== 'consul-cni');
  if (number === 0) return { ...list, plugins };
  return {
    ...list,
    name: `crowd${number}`,
    plugins: plugins.map((plugin) =>
      plugin.type === 'bridge'
        ? { ...plugin, bridge: `crowd${number}`, ipam: onSubnet(plugin['ipam'], number) }
        : plugin,
    ),
  };
}

/** IPv4's subnet and, where the list has two families, IPv6's. */
function onSubnet(ipam: unknown, number: number): object {
  const { ranges, ...rest } = ipam as { ranges: readonly unknown[] };
  const subnets = [`10.${100 + number}.0.0/20`, `fd00:${100 + number}::/112`].slice(0, ranges.length);
  return { ...rest, ranges: subnets.map((subnet) => [{ subnet }]) };
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
    checked('mount', libc().mount('/proc/thread-self/ns/net', path, 'none', MS_BIND));
  } finally {
    checked('setns', libc().setns(home, CLONE_NEWNET));
    closeSync(home);
  }
  return path;
}

/** Milliseconds in which the kernel has taken a namespace apart, which it does later and under a lock that the next round would wait for. */
const TAKEN_APART = 80;

/** A namespace that is thrown away again. */
export function dropNamespace(name: string): void {
  sh(`umount /run/netns/${name} && rm /run/netns/${name}`);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, TAKEN_APART);
}
