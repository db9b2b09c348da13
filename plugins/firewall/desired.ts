import type { Invocation } from '../../shared/cni/plugin.ts';
import { mayHaveChangedSinceAdd } from '../../shared/attachments/node-config-of-add.ts';
import {
  backendWithRules,
  perObject,
  type Desired,
  type DesiredChange,
} from '../../shared/packetfilter/desired.ts';
import { BACKENDS, chosenBackend, possibleBackends, type BackendName } from './backends.ts';
import type { FirewallSettings } from './config.ts';
import { missingSources } from './firewalld/backend.ts';
import { firewallChange } from './iptables/rules.ts';
import { withoutAddresses } from './nftables/backend.ts';
import { missingRequests } from './nftables/difference.ts';
import { TABLE } from './nftables/objects.ts';
import type { NftReader } from '../../shared/packetfilter/nftables/reader.ts';
import { restorePolicy } from './policy/policy.ts';
import { FAMILIES, planFirewall, type FirewallPlan } from './plan.ts';

export function desired(calls: readonly Invocation<FirewallSettings>[]): Desired {
  // To look for firewalld starts a program: once for each value of the key.
  const backends = new Map<string, Candidates>();
  const plans = calls.map((call) => {
    const backend = backends.get(call.config.backend) ?? candidates(call.config);
    backends.set(call.config.backend, backend);
    const plan = planned(call);
    return { call, plan, backend: backendOf(call, plan, backend) };
  });
  const of = (name: BackendName): FirewallPlan[] =>
    plans.flatMap(({ backend, plan }) => (backend === name ? [plan] : []));
  const inFirewalld = of('firewalld');
  const inTable = [
    ...of('nftables'),
    // firewalld has no ingress policies: the table has them.
    ...inFirewalld.filter(({ ingressPolicy }) => ingressPolicy !== 'open').map(withoutAddresses),
  ];
  return {
    iptables: of('iptables').flatMap(iptablesChanges),
    nftables: [
      (reader) => restorePolicy(reader, plans),
      ...(inTable.length === 0 ? [] : [(reader: NftReader) => missingRequests(reader, inTable)]),
    ],
    settings:
      inFirewalld.length === 0
        ? []
        : [
            {
              missing: () =>
                missingSources(inFirewalld).map(
                  ({ zone, source }) => `source ${source} is missing from zone ${zone} of firewalld`,
                ),
              restore: () => missingSources(inFirewalld).forEach(({ restore }) => restore()),
            },
          ],
  };
}

const planned = perObject((call: Invocation<FirewallSettings>) => planFirewall(call, call.config));

const iptablesChanges = perObject((plan: FirewallPlan): readonly DesiredChange[] =>
  FAMILIES.filter((family) => plan.addresses[family].length > 0).map((family) => ({
    family,
    table: 'filter',
    change: firewallChange(plan, plan.addresses[family]),
  })),
);

interface Candidates {
  readonly chosen: BackendName;
  readonly possible: readonly BackendName[];
}

function candidates(config: FirewallSettings): Candidates {
  return { chosen: chosenBackend(config), possible: possibleBackends(config) };
}

function backendOf(
  call: Invocation<FirewallSettings>,
  plan: FirewallPlan,
  { chosen, possible }: Candidates,
): BackendName {
  if (Object.hasOwn(BACKENDS, call.config.backend)) return chosen;
  return backendWithRules(
    chosen,
    possible,
    [TABLE],
    () => mayHaveChangedSinceAdd(call),
    (name) => BACKENDS[name].missing(plan, () => undefined),
  );
}
