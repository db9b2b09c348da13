/**
 * Hosts side by side in one benchmark: a network namespace each, with leases of its own, so that one with a single allocation and
 * one with a thousand can be measured turn by turn. The allocations that are present are made by our plugins in this process.
 */
import { inNamespace } from '../../../shared/kernel/namespace.ts';
import { makeNamespace } from '../chain/crowd.ts';
import { sh } from '../chain/machine.ts';
import { chainInProcess } from '../chain/in-process.ts';
import type { List } from '../chain/suites.ts';

export interface Host {
  readonly netns: string;
  readonly list: List;
  /** Allocations that are there all the time. */
  readonly present: number;
}

export function makeHost(name: string, list: List, present: number): Host {
  const netns = makeNamespace(name);
  const host = { netns, list: onBridge(list, name, 0), present };
  inNamespace(netns, () => {
    sh('ip link set lo up');
    for (let index = 0; index < present; index++) {
      const id = `${name}-${index}`;
      const port = FIRST_PORT + 2 * index;
      chainInProcess(onBridge(list, name, Math.floor(index / PER_BRIDGE)), 'ADD', {
        id,
        netns: makeNamespace(id),
        ports: [port, port + 1],
      });
    }
  });
  return host;
}

const FIRST_PORT = 20_000;
/** A Linux bridge has at most 1023 ports (BR_MAX_PORTS): beyond that the crowd goes to further networks. */
const PER_BRIDGE = 900;

/** The list with leases of this host's own; all but the first bridge are networks of other names. */
function onBridge(list: List, host: string, number: number): List {
  const plugins = list.plugins.map((plugin) => {
    if (plugin.type !== 'bridge') return plugin;
    const subnet = number === 0 ? {} : { ranges: [[{ subnet: `10.${100 + number}.0.0/20` }]] };
    const ipam = { ...(plugin['ipam'] as object), dataDir: `/run/leases-${host}`, ...subnet };
    return { ...plugin, ...(number === 0 ? {} : { bridge: `crowd${number}` }), ipam };
  });
  return { ...list, ...(number === 0 ? {} : { name: `crowd${number}` }), plugins };
}
