import { withRollback } from '../../../shared/cni/undo.ts';
import { isUnmanaged } from '../../../shared/packetfilter/compare.ts';
import { missingFrom } from '../../../shared/packetfilter/missing.ts';
import { namedChains } from '../../../shared/packetfilter/changed-table.ts';
import type {
  Family,
  PlannedChange,
  RemovedRules,
  TableChange,
  TableState,
} from '../../../shared/packetfilter/ruleset.ts';
import { applyWherePossible, chooseDriver } from '../../../shared/packetfilter/select.ts';
import type { FirewallBackend } from '../backend.ts';
import { garbageAddresses } from '../garbage.ts';
import { FORWARD_CHAIN, acceptedAddress, acceptRules, firewallChange } from './rules.ts';
import { needTools } from '../../../shared/packetfilter/iptables/tools.ts';
import { hostsByFamily } from '../plan.ts';

const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];

/** Rules in iptables' table filter, in the reference's chains. Only families that the container has addresses of are touched. */
export const iptablesBackend: FirewallBackend = {
  ready: () => {
    needTools('ipv4');
  },

  allow: (settings, { addresses, bridge }, warn) => {
    const driver = chooseDriver();
    withRollback(warn, (undo) => {
      for (const family of FAMILIES) {
        const own = addresses[family];
        if (own.length === 0) continue;
        driver.apply([{ family, table: 'filter', ...firewallChange(settings, own, bridge) }]);
        undo.push(`firewall rules (${family})`, () => driver.apply([removal(family, own)]));
      }
    });
  },

  forget: ({ addresses }, warn) => {
    const changes = FAMILIES.filter((family) => addresses[family].length > 0).map((family) =>
      removal(family, addresses[family]),
    );
    applyWherePossible(chooseDriver(), changes, warn);
  },

  missing: (settings, { addresses, bridge }) => {
    const driver = chooseDriver();
    for (const family of FAMILIES) {
      const own = addresses[family];
      if (own.length === 0) continue;
      const change = firewallChange(settings, own, bridge);
      const [first] = missingFrom(driver.read(family, 'filter', namedChains(change)), change);
      if (first !== undefined) return first;
    }
    return undefined;
  },

  collect: ({ network, valid }, warn) => {
    const changes = FAMILIES.map((family): PlannedChange => {
      const plan = (state: TableState): Omit<TableChange, 'family' | 'table'> => {
        const garbage = garbageAddresses(network, valid, acceptedHosts(state));
        return { removeRules: rulesOf(hostsByFamily(garbage)[family]) };
      };
      return { family, table: 'filter', plan };
    });
    applyWherePossible(chooseDriver(), changes, warn);
  },
};

function removal(family: Family, hosts: readonly string[]): TableChange {
  return { family, table: 'filter', removeRules: rulesOf(hosts) };
}

function rulesOf(hosts: readonly string[]): RemovedRules[] {
  return hosts.flatMap((host) => acceptRules(host).map(({ chain, rule }) => ({ chain, rule })));
}

/** Addresses that rules of ours, or of the reference's, let through. */
function acceptedHosts(state: TableState): string[] {
  const hosts = (state.chains.get(FORWARD_CHAIN) ?? []).map((rule) =>
    isUnmanaged(rule) ? undefined : acceptedAddress(rule),
  );
  const whole = state.family === 'ipv4' ? '/32' : '/128';
  const addresses = hosts.flatMap((host) =>
    host?.endsWith(whole) === true ? [host.slice(0, -whole.length)] : [],
  );
  return [...new Set(addresses)];
}
