import { withRollback } from '../../../shared/cni/undo.ts';
import { namedChains } from '../../../shared/packetfilter/changed-table.ts';
import { isUnmanaged, missingFrom } from '../../../shared/packetfilter/compare.ts';
import { needTools } from '../../../shared/packetfilter/iptables/tools.ts';
import type {
  Family,
  PacketFilterDriver,
  PlannedChange,
  RemovedRules,
  TableChange,
  TableState,
} from '../../../shared/packetfilter/ruleset.ts';
import { chooseDriver, missingEverywhere, removeEverywhere } from '../../../shared/packetfilter/select.ts';
import { staleAddresses } from '../container-addresses.ts';
import type { ConfigurationChange, FirewallBackend } from '../backend.ts';
import { FAMILIES, hostsByFamily, type FirewallPlan } from '../plan.ts';
import {
  FORWARD_CHAIN,
  acceptedAddress,
  acceptRules,
  adminChains,
  firewallChange,
  policyOfBridge,
} from './rules.ts';

/** Rules in table filter of iptables, in the reference's chains. Only families in which the container has an address are changed. */
export const iptablesBackend: FirewallBackend = {
  ready: () => {
    needTools('ipv4');
  },

  add: (plan, warn) => {
    const driver = chooseDriver();
    withRollback(warn, (undo) => {
      for (const family of familiesOf(plan)) {
        driver.apply([{ family, table: 'filter', ...firewallChange(plan, plan.addresses[family]) }]);
        undo.push(`firewall rules (${family})`, () =>
          driver.apply([removal(family, plan.addresses[family])]),
        );
      }
    });
  },

  remove: ({ addresses }, warn) => {
    const families = FAMILIES.filter((family) => addresses[family].length > 0);
    removeEverywhere(
      families.map((family) => removal(family, addresses[family])),
      warn,
    );
  },

  missing: (plan, changed) => {
    for (const family of familiesOf(plan)) {
      let changes: ConfigurationChange[] = [];
      const missing = missingEverywhere(family, (driver) => {
        changes = [];
        return missingIn(driver, family, plan, (change) => void changes.push(change));
      });
      if (missing !== undefined) return missing;
      changes.forEach(changed);
    }
    return undefined;
  },

  collect: ({ network, valid }, warn) => {
    const changes = FAMILIES.map((family): PlannedChange => {
      const plan = (state: TableState): Omit<TableChange, 'family' | 'table'> => {
        const stale = staleAddresses({ network, valid }, acceptedAddresses(state));
        return { removeRules: rulesOf(hostsByFamily(stale)[family]) };
      };
      return { family, table: 'filter', plan };
    });
    removeEverywhere(changes, warn);
  },
};

function familiesOf({ addresses }: FirewallPlan): Family[] {
  return FAMILIES.filter((family) => addresses[family].length > 0);
}

function missingIn(
  driver: PacketFilterDriver,
  family: Family,
  plan: FirewallPlan,
  changed: (change: ConfigurationChange) => void,
): string | undefined {
  const change = firewallChange(plan, plan.addresses[family]);
  const state = driver.read(family, 'filter', namedChains(change));
  const [missing] = missingFrom(state, change);
  if (missing === undefined) return undefined;
  const { plan: added, changes } = planAsAdded(state, plan);
  // Without chains, which were not all read: a rule that jumps to one proves that it exists.
  const { ensureRules = [] } = firewallChange(added, plan.addresses[family]);
  const [damaged] = missingFrom(state, { ensureRules });
  if (damaged !== undefined) return changes.length > 0 ? damaged : missing;
  changes.forEach(changed);
  return undefined;
}

/**
 * The plan that the container was added with, as far as the table shows: another operator's chain, no ingress policy, or the other
 * one for this bridge.
 */
function planAsAdded(
  state: TableState,
  plan: FirewallPlan,
): { plan: FirewallPlan; changes: ConfigurationChange[] } {
  const changes: ConfigurationChange[] = [];
  let added = plan;
  const chains = adminChains(state);
  const [first] = chains;
  if (first !== undefined && !chains.includes(plan.adminChain)) {
    const found = `${FORWARD_CHAIN} leads to chain ${chains.join(', ')} and not to ${plan.adminChain}`;
    changes.push({ key: 'iptablesAdminChainName', found });
    added = { ...added, adminChain: first };
  }
  const policy = policyOfBridge(state, plan);
  if (policy !== plan.ingressPolicy) {
    const found = `bridge ${plan.bridge ?? ''} has the policy ${policy} and not ${plan.ingressPolicy}`;
    changes.push({ key: 'ingressPolicy', found });
    added = { ...added, ingressPolicy: policy, bridge: policy === 'open' ? undefined : plan.bridge };
  }
  return { plan: added, changes };
}

function removal(family: Family, hosts: readonly string[]): TableChange {
  return { family, table: 'filter', removeRules: rulesOf(hosts) };
}

function rulesOf(hosts: readonly string[]): RemovedRules[] {
  return hosts.flatMap((host) => acceptRules(host).map(({ chain, rule }) => ({ chain, rule })));
}

/** The single addresses that rules of this plugin, or of the reference's, accept. */
function acceptedAddresses(state: TableState): string[] {
  const prefixLength = state.family === 'ipv4' ? '/32' : '/128';
  const addresses = (state.chains.get(FORWARD_CHAIN) ?? []).flatMap((rule) => {
    const host = isUnmanaged(rule) ? undefined : acceptedAddress(rule);
    return host?.endsWith(prefixLength) === true ? [host.slice(0, -prefixLength.length)] : [];
  });
  return [...new Set(addresses)];
}
