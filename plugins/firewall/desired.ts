import type { Invocation } from '../../shared/cni/plugin.ts';
import { mayHaveChangedSinceAdd } from '../../shared/attachments/node-config-of-add.ts';
import { backendWithRules, type Desired } from '../../shared/packetfilter/desired.ts';
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
  const backends = new Map<string, BackendName>();
  const plans = calls.map((call) => {
    const backend = backends.get(call.config.backend) ?? chosenBackend(call.config);
    backends.set(call.config.backend, backend);
    const plan = planFirewall(call, call.config);
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
    iptables: of('iptables').flatMap((plan) =>
      FAMILIES.filter((family) => plan.addresses[family].length > 0).map((family) => ({
        family,
        table: 'filter' as const,
        change: firewallChange(plan, plan.addresses[family]),
      })),
    ),
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

function backendOf(call: Invocation<FirewallSettings>, plan: FirewallPlan, chosen: BackendName): BackendName {
  if (Object.hasOwn(BACKENDS, call.config.backend) || !mayHaveChangedSinceAdd(call)) return chosen;
  return backendWithRules(chosen, possibleBackends(call.config), [TABLE], (name) =>
    BACKENDS[name].missing(plan, () => undefined),
  );
}
