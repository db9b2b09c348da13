import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniDns } from '../../shared/cni/types.ts';
import {
  netnsName,
  removeEveryNetnsResolvConf,
  removeNetnsResolvConf,
  writeNetnsResolvConf,
  type ResolvConfOwner,
} from './dns/netns-resolv-conf.ts';
import { hostResolvConf } from './dns/resolv-conf.ts';

type Call = Pick<Invocation<unknown>, 'netns' | 'network' | 'containerId' | 'ifname' | 'warn'>;

/**
 * For a namespace with a name: the resolv.conf that `ip netns exec` shows to programs in it. Nomad gives its tasks the DNS of the result
 * instead, so a host where /etc cannot be written loses a convenience and no allocation: that is told and not thrown.
 * @param dns of the result; undefined when the allocation has no Consul DNS, and an older file of ours goes
 */
export function keepResolvConf(call: Call, dns: CniDns | undefined): void {
  const name = netnsName(call.netns);
  if (name === undefined) return;
  try {
    if (dns === undefined) {
      removeNetnsResolvConf(name, isOwner(call));
      return;
    }
    const host = hostResolvConf();
    const written = writeNetnsResolvConf(name, call, {
      nameservers: dns.nameservers ?? [],
      search: orElse(dns.search, host.search),
      options: orElse(dns.options, host.options),
    });
    if (written === 'foreign')
      call.warn(`/etc/netns/${name}/resolv.conf is not ours and stays as it is: it may not name Consul DNS`);
  } catch (thrown) {
    call.warn(
      `cannot write /etc/netns/${name}/resolv.conf: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
    );
  }
}

/** Removes this attachment's file; without a namespace in the call, wherever it is. */
export function removeResolvConf(call: Call): void {
  const name = netnsName(call.netns);
  if (name !== undefined) removeNetnsResolvConf(name, isOwner(call));
  else if (call.netns === '') removeEveryNetnsResolvConf(isOwner(call));
}

/** GC: the files of this network whose attachment is not valid any more. Without a list of valid ones nothing is known to be stale. */
export function removeStaleResolvConf(call: Pick<Invocation<unknown>, 'network' | 'validAttachments'>): void {
  const { network, validAttachments: valid } = call;
  if (valid === undefined) return;
  const isValid = (owner: ResolvConfOwner): boolean =>
    valid.some(({ containerID, ifname }) => containerID === owner.containerId && ifname === owner.ifname);
  removeEveryNetnsResolvConf((owner) => owner.network === network && !isValid(owner));
}

/** Of the interface, too: one container may have several on one network. */
function isOwner({ network, containerId, ifname }: Call): (owner: ResolvConfOwner) => boolean {
  return (owner) => owner.network === network && owner.containerId === containerId && owner.ifname === ifname;
}

/** A list that the result gives counts; the host's stands in for one that it leaves out. */
function orElse(own: readonly string[] | undefined, host: readonly string[]): readonly string[] {
  return own === undefined || own.length === 0 ? host : own;
}
