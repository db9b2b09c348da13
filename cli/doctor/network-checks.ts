import type { InventoryEntry } from '../../shared/attachments/inventory.ts';
import { addressesOf } from '../../shared/attachments/namespaces.ts';
import type { AddressInfo } from '../../shared/kernel/rtnetlink/addresses.ts';
import { addAddress } from '../../shared/kernel/rtnetlink/addresses.ts';
import { setLink, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import {
  containsAddress,
  formatAddress,
  formatCidr,
  networkOf,
  overlaps,
  parseCidr,
  type Cidr,
  withoutPrefixLength,
} from '../../shared/net/address.ts';
import type { Check, Finding } from './finding.ts';
import type { Host } from './examined-host.ts';
import { subnetsOf, type Network } from './networks.ts';
import { defaultRoutes } from './uplinks.ts';

export const NETWORK_CHECKS: readonly Check<Host>[] = [
  { name: 'bridges', group: 'network', run: bridges },
  { name: 'addresses of the bridges', group: 'network', run: bridgeAddresses },
  { name: 'subnets', group: 'network', run: subnets },
  { name: 'interfaces of the allocations', group: 'network', run: containers },
  { name: 'ports of the bridges', group: 'network', run: ports },
];

/** Each bridge once, with the networks that use it; those that no allocation has needed yet do not exist. */
function existing(host: Host): { link: LinkInfo; networks: readonly Network[] }[] {
  return [...Map.groupBy(host.networks(), ({ bridge }) => bridge)].flatMap(([bridge, networks]) => {
    const link = host.links().find(({ name }) => name === bridge);
    return link === undefined ? [] : [{ link, networks }];
  });
}

function bridges(host: Host): Finding[] {
  const uplink = Math.min(
    ...(['ipv4', 'ipv6'] as const).flatMap((one) => defaultRoutes(host, one).map(({ mtu }) => mtu)),
  );
  return existing(host).flatMap(({ link }): Finding[] => {
    const { name } = link;
    const where = `interface ${name}`;
    if (link.kind !== 'bridge')
      return [
        {
          id: 'not-a-bridge',
          what: `${name} is a ${link.kind ?? 'hardware'} interface`,
          where,
          remedy: `rename or delete it (ip link del ${name}), or give the network another bridge`,
        },
      ];
    const found: Finding[] = [];
    if (!link.up)
      found.push({
        id: 'bridge-down',
        what: `${name} is down`,
        where,
        remedy: `ip link set ${name} up`,
        fix: {
          command: `ip link set ${name} up`,
          undo: `ip link set ${name} down`,
          apply: () => changeLink(name, { up: true }),
        },
      });
    // NET_ADDR_SET of linux/netdevice.h; otherwise the bridge has the lowest MAC of its ports.
    const assigned = host.text(`/sys/class/net/${name}/addr_assign_type`)?.trim();
    const { mac } = link;
    if (assigned !== undefined && assigned !== '3' && mac !== undefined)
      found.push({
        id: 'bridge-mac',
        what: `the MAC of ${name} follows its ports`,
        where,
        remedy: `ip link set ${name} address ${mac}`,
      });
    if ((host.text(`/sys/class/net/${name}/bridge/stp_state`)?.trim() ?? '0') !== '0')
      found.push({
        id: 'bridge-stp',
        what: `the spanning tree protocol is on for ${name}`,
        where,
        remedy: `ip link set ${name} type bridge stp_state 0`,
      });
    if (link.mtu > uplink)
      found.push({
        id: 'mtu-above-uplink',
        what: `${name} has MTU ${link.mtu}, the uplink ${uplink}`,
        where,
        remedy: `ip link set ${name} mtu ${uplink}; and set "mtu": "auto" in /etc/weft/weft.json for new allocations`,
      });
    return [...found, ...managed(host, link)];
  });
}

/** systemd-networkd and NetworkManager keep a file for each interface that they know. */
function managed(host: Host, { name, index }: LinkInfo): Finding[] {
  const networkd = host.text(`/run/systemd/netif/links/${index}`) ?? '';
  const admin = /^ADMIN_STATE=(.*)$/m.exec(networkd)?.[1];
  if (admin !== undefined && admin !== 'unmanaged')
    return [
      {
        id: 'bridge-managed',
        what: `systemd-networkd manages ${name} (${admin})`,
        where: `interface ${name}`,
        remedy:
          `printf '[Match]\\nName=${name} veth*\\n[Link]\\nUnmanaged=yes\\n' > /etc/systemd/network/05-weft.network; ` +
          'networkctl reload',
      },
    ];
  const manager = host.text(`/run/NetworkManager/devices/${index}`) ?? '';
  if (!/^managed=true$/m.test(manager)) return [];
  return [
    {
      id: 'bridge-managed',
      what: `NetworkManager manages ${name}`,
      where: `interface ${name}`,
      remedy:
        `printf '[keyfile]\\nunmanaged-devices=interface-name:${name};interface-name:veth*\\n' ` +
        '> /etc/NetworkManager/conf.d/weft.conf; nmcli general reload',
    },
  ];
}

function bridgeAddresses(host: Host): Finding[] {
  const running = host.attachments().filter(({ state }) => state === 'running');
  return existing(host).flatMap(({ link, networks }): Finding[] => {
    if (link.kind !== 'bridge') return [];
    const present = host.addresses().filter(({ index }) => index === link.index);
    const subnets = networks.flatMap(subnetsOf);
    const isKnown = networks.every(({ rangeSets }) => rangeSets.length > 0);
    const unexpected = isKnown ? present.filter((one) => isGlobal(one) && !isIn(subnets, one)) : [];
    const gateways = networks
      .filter(({ name, isGateway }) => isGateway && running.some(({ network }) => network === name))
      .flatMap(({ rangeSets }) => rangeSets.map(([range]) => range))
      .flatMap((range) =>
        range === undefined ? [] : [{ address: range.gateway, prefix: range.subnet.prefix }],
      );
    const lost = gateways.filter(
      ({ address }) => !present.some((one) => one.address.startsWith(`${formatAddress(address)}/`)),
    );
    return [
      ...lost.map((gateway): Finding => addressMissing(link, formatCidr(gateway))),
      ...unexpected.map(({ address }): Finding => ({
        id: 'bridge-address-unexpected',
        what: `${link.name} has ${address}, outside of ${subnets.map(formatCidr).join(', ')}`,
        where: `interface ${link.name}`,
        remedy: `ip address del ${address} dev ${link.name}`,
      })),
    ];
  });
}

function addressMissing({ name, index }: LinkInfo, address: string): Finding {
  const command = (verb: string): string => `ip address ${verb} ${address} dev ${name}`;
  return {
    id: 'bridge-address-missing',
    what: `${name} does not have ${address}, the gateway of its allocations`,
    where: `interface ${name}`,
    remedy: command('add'),
    fix: {
      command: command('add'),
      undo: command('del'),
      apply: () => {
        using rtnetlink = Rtnetlink.open();
        addAddress(rtnetlink, { index, address, noDad: true });
      },
    },
  };
}

/** Each subnet compared with the addresses and routes of other interfaces. */
function subnets(host: Host): Finding[] {
  const nameOf = (index: number | undefined): string =>
    host.links().find((link) => link.index === index)?.name ?? `interface ${index ?? '?'}`;
  return host.networks().flatMap((network) => {
    const own = host.links().find(({ name }) => name === network.bridge)?.index;
    return subnetsOf(network).flatMap((subnet): Finding[] => {
      const inside = host.addresses().filter((one) => one.index !== own && isIn([subnet], one));
      const covered = new Set(inside.map(({ index }) => index));
      const overlapping = host.routes().filter(({ destination, link, type }) => {
        const cidr = parseCidr(destination);
        if (cidr === undefined || cidr.prefix === 0 || type !== RTN_UNICAST) return false;
        return link !== own && !(link !== undefined && covered.has(link)) && overlaps(subnet, cidr);
      });
      const remedy =
        network.name === 'nomad'
          ? 'set client.bridge_network_subnet to a free subnet in the configuration of Nomad, drain the node and restart it'
          : `choose another subnet in ${network.source}`;
      const where = `network ${network.name}`;
      return [
        ...inside.map(({ address, index }): Finding => ({
          id: 'subnet-address',
          what: `${formatCidr(subnet)} contains ${address} of ${nameOf(index)}`,
          where,
          remedy,
        })),
        ...overlapping.map(({ destination, link }): Finding => ({
          id: 'subnet-route',
          what: `${formatCidr(subnet)} overlaps the route to ${destination} by ${nameOf(link)}`,
          where,
          remedy,
        })),
      ];
    });
  });
}

/** Those of running attachments whose namespace is known, compared with what ADD reported. */
function containers(host: Host): Finding[] {
  // Networks that share a bridge share its addresses.
  const bridges = new Map(host.networks().map(({ name, bridge }) => [name, bridge]));
  const holders = new Map<string, InventoryEntry[]>();
  const found: Finding[] = [];
  for (const attachment of host.attachments()) {
    const { namespace, netns, addresses, containerId } = attachment;
    if (namespace === undefined || addresses.length === 0) continue;
    const present = addressesOf(netns);
    if (present === undefined) continue;
    const wanted = addresses.map(withoutPrefixLength);
    const lost = wanted.filter((address) => !present.includes(address));
    if (lost.length > 0)
      found.push({
        id: 'container-interface',
        what: `network namespace ${netns} does not have ${lost.join(', ')}`,
        where: `allocation ${containerId}`,
        remedy: `nomad alloc restart ${containerId}`,
      });
    for (const address of present) {
      const key = `${bridges.get(attachment.network) ?? attachment.network} ${address}`;
      if (wanted.includes(address)) holders.set(key, [...(holders.get(key) ?? []), attachment]);
    }
  }
  for (const [key, several] of holders) {
    const identities = new Set(several.map(({ namespace }) => `${namespace?.dev}:${namespace?.ino}`));
    if (identities.size < 2) continue;
    const ids = [...new Set(several.map(({ containerId }) => containerId))];
    found.push({
      id: 'address-duplicate',
      what: `${key.split(' ')[1] ?? ''} is the address of ${ids.join(' and ')}`,
      where: `bridge ${key.split(' ')[0] ?? ''}`,
      remedy: `stop all but one of them: nomad alloc stop ${ids.at(-1) ?? ''}`,
    });
  }
  return found;
}

/** A veth pair ends with either of its namespaces, so an orphan's peer is in this one, or in that of an allocation that Nomad has given up. */
function ports(host: Host): Finding[] {
  const gone = host.attachments().filter(({ state }) => state === 'gone');
  const owned = new Set(
    host.attachments().flatMap(({ hostInterfaces, state }) => (state === 'gone' ? [] : hostInterfaces)),
  );
  return existing(host).flatMap(({ link: bridge }) =>
    host
      .links()
      .filter(({ master, kind, name }) => master === bridge.index && kind === 'veth' && !owned.has(name))
      .flatMap(({ name, alias, peerNamespaceId }): Finding[] => {
        const owner = gone.find(
          (one) => alias?.startsWith(`weft:${one.network}/${one.containerId}/`) === true,
        );
        if (owner === undefined && peerNamespaceId !== undefined) return [];
        const why =
          owner === undefined
            ? 'its other end is on this host'
            : `${owner.containerId} is gone: ${owner.reason}`;
        return [
          {
            id: 'veth-orphan',
            what: `${name} is a port of ${bridge.name}, and ${why}`,
            where: `interface ${name}`,
            remedy: `ip link del ${name}`,
          },
        ];
      }),
  );
}

function changeLink(name: string, change: Parameters<typeof setLink>[2]): void {
  using rtnetlink = Rtnetlink.open();
  setLink(rtnetlink, name, change);
}

function isIn(subnets: readonly Cidr[], { address }: AddressInfo): boolean {
  const cidr = parseCidr(address);
  return (
    cidr !== undefined &&
    subnets.some(
      (subnet) =>
        subnet.address.family === cidr.address.family && containsAddress(networkOf(subnet), cidr.address),
    )
  );
}

/** Not link-local. */
function isGlobal({ scope }: AddressInfo): boolean {
  return scope === 0;
}

const RTN_UNICAST = 1;
