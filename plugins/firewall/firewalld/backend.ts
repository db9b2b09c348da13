import { withoutPrefixLength } from '../../../shared/net/address.ts';
import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import { runAll, withRollback } from '../../../shared/cni/undo.ts';
import { staleAddresses } from '../container-addresses.ts';
import type { FirewallBackend } from '../backend.ts';
import { ingressPolicy } from '../nftables/backend.ts';
import { hostsByFamily, type FirewallPlan, type HostsByFamily } from '../plan.ts';
import { Firewalld, FirewalldError } from './firewalld.ts';

/**
 * The container's addresses as sources of a zone of firewalld. Zones have no ingress policies: the nftables back end's table enforces
 * them with drops that firewalld cannot overrule.
 */
export const firewalldBackend: FirewallBackend = {
  ready: () => void requireFirewalld(),

  add: (plan, warn) => {
    const firewalld = requireFirewalld();
    withRollback(warn, (undo) => {
      for (const source of sourcesOf(plan.addresses)) {
        if (!addSource(firewalld, plan.zone, source)) continue;
        undo.push(`source ${source} of firewalld`, () => firewalld.removeSource(plan.zone, source));
      }
      ingressPolicy.enforce(plan);
    });
  },

  remove: ({ addresses, zone }, warn) =>
    withFirewalld(warn, (firewalld) =>
      runAll(
        sourcesOf(addresses).map((source) => () => removeSource(firewalld, zone, source)),
        warn,
      ),
    ),

  missing: (plan, changed) => {
    const firewalld = requireFirewalld();
    for (const source of sourcesOf(plan.addresses)) {
      const zone = firewalld.zoneOf(source);
      if (zone === undefined) return `source ${source} is missing from zone ${plan.zone} of firewalld`;
      if (zone === plan.zone) continue;
      changed({ key: 'firewalldZone', found: `source ${source} is in zone ${zone} and not in ${plan.zone}` });
    }
    return ingressPolicy.missing(plan, changed);
  },

  /** Sources carry no comment: whose an address is, is found out as for the rules of iptables. */
  collect: ({ network, valid, zone }, warn) =>
    withFirewalld(warn, (firewalld) => {
      const hosts = sourcesIn(firewalld, zone).filter((source) =>
        /^[\d.]+\/32$|^[\da-f:.]+\/128$/i.test(source),
      );
      const stale = staleAddresses({ network, valid }, hosts.map(withoutPrefixLength));
      runAll(
        sourcesOf(hostsByFamily(stale)).map((source) => () => removeSource(firewalld, zone, source)),
        warn,
      );
    }),
};

interface MissingSource {
  readonly zone: string;
  readonly source: string;
  readonly restore: () => void;
}

/** For repair: the containers' sources that firewalld lacks, after a reload for example; none while firewalld does not run. */
export function missingSources(plans: readonly FirewallPlan[]): MissingSource[] {
  const firewalld = connect();
  if (typeof firewalld === 'string') return [];
  return [...Map.groupBy(plans, ({ zone }) => zone)].flatMap(([zone, own]) => {
    const present = new Set(sourcesIn(firewalld, zone));
    return own
      .flatMap(({ addresses }) => sourcesOf(addresses))
      .filter((source) => !present.has(source))
      .map((source) => ({ zone, source, restore: () => void addSource(firewalld, zone, source) }));
  });
}

function sourcesOf({ ipv4, ipv6 }: HostsByFamily): string[] {
  return [...ipv4, ...ipv6];
}

/** @returns false if it was there already */
function addSource(firewalld: Firewalld, zone: string, source: string): boolean {
  if (isInZone(firewalld, zone, source)) return false;
  try {
    firewalld.addSource(zone, source);
    return true;
  } catch (thrown) {
    // Another process may have added it meanwhile; otherwise firewalld's own error says most.
    if (thrown instanceof FirewalldError && isInZone(firewalld, zone, source)) return false;
    throw thrown;
  }
}

/** @throws CniError if the source is in another zone: it can be in one only */
function isInZone(firewalld: Firewalld, zone: string, source: string): boolean {
  const current = firewalld.zoneOf(source);
  if (current === undefined || current === zone) return current === zone;
  throw new CniError(
    CniCode.Internal,
    `firewalld has ${source} in zone ${current} already (ZONE_CONFLICT), so it cannot be added to zone ${zone}`,
    {
      details: `firewall-cmd --zone=${current} --remove-source=${source}, or name that zone: "firewalldZone": "${current}"`,
    },
  );
}

function removeSource(firewalld: Firewalld, zone: string, source: string): void {
  if (firewalld.zoneOf(source) !== zone) return;
  try {
    firewalld.removeSource(zone, source);
  } catch (thrown) {
    if (!(thrown instanceof FirewalldError) || firewalld.zoneOf(source) === zone) throw thrown;
  }
}

/** None if the zone does not exist. */
function sourcesIn(firewalld: Firewalld, zone: string): string[] {
  try {
    return firewalld.sources(zone);
  } catch (thrown) {
    if (thrown instanceof FirewalldError) return [];
    throw thrown;
  }
}

/** @throws CniError 50 if firewalld cannot be used */
function requireFirewalld(): Firewalld {
  const firewalld = connect();
  if (typeof firewalld !== 'string') return firewalld;
  throw new CniError(
    CniCode.PluginNotAvailable,
    `firewalld does not run on this host, but is the firewall plugin's back end: ${firewalld}`,
    {
      details: 'start firewalld, or choose another back end: "backend": "nftables" or "iptables"',
    },
  );
}

/** For what only removes: without firewalld there is nothing to remove. */
function withFirewalld(warn: (line: string) => void, work: (firewalld: Firewalld) => void): void {
  try {
    const firewalld = connect();
    if (typeof firewalld !== 'string') work(firewalld);
  } catch (thrown) {
    if (!(thrown instanceof CniError)) throw thrown;
    warn(`${thrown.message}; sources of this container stay in firewalld until it is reloaded`);
  }
}

/** A bus that rejects the question, or ends meanwhile, counts as none; one that does not answer in time is an error. */
function connect(): Firewalld | string {
  try {
    return Firewalld.connect();
  } catch (thrown) {
    if (thrown instanceof FirewalldError) return thrown.message;
    throw thrown;
  }
}
