import type { Invocation } from '../../shared/cni/plugin.ts';
import { mayHaveChangedSinceAdd } from '../../shared/attachments/node-config-of-add.ts';
import { backendWithRules, perObject, type Desired } from '../../shared/packetfilter/desired.ts';
import type { Backend } from '../../shared/packetfilter/select.ts';
import type { PortForwarding } from './backend.ts';
import { backendName, type PortmapSettings } from './config.ts';
import { hasRawArgs } from './iptables/backend.ts';
import { portmapChange } from './iptables/plan.ts';
import { allowLocalhost, missingLocalhostSysctls } from './localhost.ts';
import { tableOf } from './nftables/plan.ts';
import { restoreRequests } from './nftables/requests.ts';
import { BACKENDS } from './plugin.ts';
import { FAMILIES, planOf, requirePrevResult } from './plan.ts';

export function desired(calls: readonly Invocation<PortmapSettings>[]): Desired {
  // To choose one reads files: once for each value of the keys.
  const backends = new Map<Backend | undefined, Backend>();
  const perCall = calls.map((call) => {
    const forwardings = forwardingsOf(call);
    const named = call.config.backend ?? call.config.implied;
    const chosen = backends.get(named) ?? backendName(call.config);
    backends.set(named, chosen);
    return { forwardings, backend: backendOf(call, chosen, forwardings) };
  });
  const forwardings = perCall.flatMap((one) => one.forwardings);
  const inBackend = (name: Backend): PortForwarding[] =>
    perCall.flatMap((one) => (one.backend === name ? one.forwardings : []));
  const inTables = Map.groupBy(inBackend('nftables'), ({ family }) => family);
  return {
    iptables: inBackend('iptables').map((forwarding) => ({
      family: forwarding.family,
      table: 'nat',
      change: changeOf(forwarding),
      rawArgs: hasRawArgs(forwarding),
    })),
    nftables: FAMILIES.flatMap((family) => {
      const own: PortForwarding[] = inTables.get(family) ?? [];
      return own.length === 0 ? [] : [(reader) => restoreRequests(reader, family, own)];
    }),
    sharesPorts: mayShare([...inTables.values()].flat()),
    settings: [
      {
        missing: () =>
          missingLocalhostSysctls(forwardings).map((path) => `${path.replaceAll('/', '.')} is not 1`),
        restore: () => allowLocalhost(forwardings),
      },
    ],
  };
}

const forwardingsOf = perObject(
  (call: Invocation<PortmapSettings>) => planOf(call, call.config, requirePrevResult(call)).forwardings,
);
const changeOf = perObject(portmapChange);

function backendOf(
  call: Invocation<PortmapSettings>,
  chosen: Backend,
  forwardings: readonly PortForwarding[],
): Backend {
  const isNamed = (call.config.backend ?? call.config.implied) !== undefined;
  if (isNamed || forwardings.length === 0) return chosen;
  return backendWithRules(
    chosen,
    ['iptables', 'nftables'],
    FAMILIES.map(tableOf),
    () => mayHaveChangedSinceAdd(call),
    (name) => BACKENDS[name].missing(forwardings, new Set()),
  );
}

/** A range may contain any other port. */
function mayShare(forwardings: readonly PortForwarding[]): boolean {
  const ports = forwardings.flatMap(({ family, mappings }) =>
    mappings.map(({ protocol, hostPort, range }) => (range > 1 ? '' : `${family} ${protocol} ${hostPort}`)),
  );
  return ports.includes('') || new Set(ports).size < ports.length;
}
