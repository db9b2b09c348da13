/**
 * Hosts side by side in one benchmark: a network namespace each, with leases of its own, so that one with a single allocation and
 * one with a thousand can be measured turn by turn. The allocations that are present are made by our plugins in this process.
 */
import { runPlugin } from '../../../shared/cni/protocol.ts';
import { inNamespace } from '../../../shared/kernel/namespace.ts';
import { plugin as bridge } from '../../../plugins/bridge/plugin.ts';
import { plugin as firewall } from '../../../plugins/firewall/plugin.ts';
import { plugin as loopback } from '../../../plugins/loopback/plugin.ts';
import { plugin as portmap } from '../../../plugins/portmap/plugin.ts';
import { makeNamespace } from '../chain/crowd.ts';
import { sh } from '../chain/machine.ts';
import { WEFT, type List } from '../chain/suites.ts';
import { configOf, environmentOf, type Allocation } from './chain.ts';

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
      addInProcess(onBridge(list, name, Math.floor(index / PER_BRIDGE)), {
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
const PLUGINS = { loopback, bridge, firewall, portmap } as const;

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

function addInProcess(list: List, allocation: Allocation): void {
  let prevResult: unknown;
  for (const plugin of list.plugins) {
    const implementation = PLUGINS[plugin.type as keyof typeof PLUGINS];
    if (implementation === undefined) throw new Error(`no plugin ${plugin.type} in this benchmark`);
    let out = '';
    const edge = {
      environment: environmentOf('ADD', allocation, WEFT.binDir),
      readStdin: () => configOf(list, plugin, allocation, prevResult),
      isOwnNamespace: () => false,
      writeOut: (text: string) => void (out += text),
      writeErr: () => undefined,
    };
    // Each plugin has a configuration of its own; the protocol only hands it through.
    if (runPlugin(implementation as never, edge) !== 0)
      throw new Error(`${plugin.type} ${allocation.id}: ${out}`);
    prevResult = JSON.parse(out);
  }
}
