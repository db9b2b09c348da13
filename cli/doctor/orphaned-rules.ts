import { loadTracesRoles, look } from '../../agent/collect/look.ts';
import { addressesInUse } from '../../shared/attachments/namespaces.ts';
import { isUnmanaged } from '../../shared/packetfilter/compare.ts';
import { ruleText } from '../../shared/packetfilter/iptables/render.ts';
import type { Rule } from '../../shared/packetfilter/ruleset.ts';
import { containsAddress, parseAddress, withoutPrefixLength } from '../../shared/net/address.ts';
import type { Finding } from './finding.ts';
import { PROGRAMS, type Host } from './examined-host.ts';
import { subnetsOf } from './networks.ts';

/** Rules, chains and elements of containers that are gone: those that name the container, and those of the firewall plugin, which have an address only. */
export async function orphanedRules(host: Host): Promise<Finding[]> {
  return [...(await named(host)), ...addressed(host)];
}

/** What `weft gc` removes; interfaces, leases and cached results are findings of their own. */
async function named(host: Host): Promise<Finding[]> {
  if (!host.isRoot) throw new Error('only root can read the network namespaces of containers');
  const { leaks } = look(await loadTracesRoles());
  return leaks.flatMap(({ network, containerId, traces }): Finding[] => {
    const pieces = traces.map(({ what }) => what).filter((what) => /^(chain|rule|element) /.test(what));
    if (pieces.length === 0) return [];
    return [
      {
        id: 'rules-orphaned',
        what: `${pieces.length} ${pieces.length === 1 ? 'rule' : 'rules'} of ${network}/${containerId}, which is gone`,
        where: pieces.join(', '),
        remedy: 'weft gc',
      },
    ];
  });
}

/** In chain CNI-FORWARD: an address of a known subnet that is neither leased nor in a network namespace of this host. */
function addressed(host: Host): Finding[] {
  const subnets = host.networks().flatMap(subnetsOf);
  const known = new Set(host.attachments().flatMap((one) => one.addresses.map(withoutPrefixLength)));
  const found = host.iptablesTables().flatMap(({ state, isOwn, variant }) => {
    if (state.table !== 'filter') return [];
    const program = `${PROGRAMS[state.family]}${isOwn ? '' : `-${variant}`}`;
    return (state.chains.get('CNI-FORWARD') ?? []).flatMap((rule) => {
      const address = isUnmanaged(rule) ? undefined : addressOf(rule);
      if (isUnmanaged(rule) || address === undefined || known.has(address)) return [];
      const parsed = parseAddress(address);
      const isOurs = parsed !== undefined && subnets.some((subnet) => isIn(subnet, parsed));
      return isOurs ? [{ address, program, command: `${program} -D CNI-FORWARD ${ruleText(rule)}` }] : [];
    });
  });
  // All namespaces are read only where such a rule exists.
  const used = found.length === 0 ? undefined : addressesInUse();
  const unused = found.filter(({ address }) => used?.isComplete === true && !used.byAddress.has(address));
  return [...Map.groupBy(unused, ({ address, program }) => `${address} ${program}`).values()].map((own) => ({
    id: 'rules-orphaned',
    what: `${own.length} ${own.length === 1 ? 'rule' : 'rules'} for ${own[0]?.address ?? ''}, which no allocation has`,
    where: `chain CNI-FORWARD of ${own[0]?.program ?? ''}`,
    remedy: own.map(({ command }) => command).join('; '),
  }));
}

function addressOf({ source, destination }: Rule): string | undefined {
  const text = (source ?? destination)?.value;
  return text !== undefined && /\/(32|128)$/.test(text) ? withoutPrefixLength(text) : undefined;
}

function isIn(
  subnet: Parameters<typeof containsAddress>[0],
  address: Parameters<typeof containsAddress>[1],
): boolean {
  return subnet.address.family === address.family && containsAddress(subnet, address);
}
