import type { Invocation } from '../../shared/cni/plugin.ts';
import { readSysctl, writeSysctl } from '../../shared/kernel/sysctl.ts';
import type { Desired } from '../../shared/packetfilter/desired.ts';
import type { PortForwarding } from './backend.ts';
import { backendName, type PortmapSettings } from './config.ts';
import { hasRawArgs } from './iptables/backend.ts';
import { portmapChange } from './iptables/plan.ts';
import { localhostSysctls } from './localhost.ts';
import { restoreRequests } from './nftables/requests.ts';
import { FAMILIES, planOf, requirePrevResult } from './plan.ts';

export function desired(calls: readonly Invocation<PortmapSettings>[]): Desired {
  const forwardings = calls.flatMap((call) => planOf(call, call.config, requirePrevResult(call)).forwardings);
  const byBackend = Map.groupBy(forwardings, ({ settings }) => backendName(settings));
  const inTables = Map.groupBy(byBackend.get('nftables') ?? [], ({ family }) => family);
  return {
    iptables: (byBackend.get('iptables') ?? []).map((forwarding) => ({
      family: forwarding.family,
      table: 'nat',
      change: portmapChange(forwarding),
      rawArgs: hasRawArgs(forwarding),
    })),
    nftables: FAMILIES.flatMap((family) => {
      const own: PortForwarding[] = inTables.get(family) ?? [];
      return own.length === 0 ? [] : [(reader) => restoreRequests(reader, family, own)];
    }),
    sharesPorts: mayShare([...inTables.values()].flat()),
    settings: [
      {
        missing: () => wrong(forwardings).map((path) => `${path.replaceAll('/', '.')} is not 1`),
        restore: () => {
          for (const path of wrong(forwardings)) writeSysctl(path, 1);
        },
      },
    ],
  };
}

/** A range may contain any other port. */
function mayShare(forwardings: readonly PortForwarding[]): boolean {
  const ports = forwardings.flatMap(({ family, mappings }) =>
    mappings.map(({ protocol, hostPort, range }) => (range > 1 ? '' : `${family} ${protocol} ${hostPort}`)),
  );
  return ports.includes('') || new Set(ports).size < ports.length;
}

function wrong(forwardings: readonly PortForwarding[]): string[] {
  return localhostSysctls(forwardings).filter((path) => readSysctl(path) !== '1');
}
