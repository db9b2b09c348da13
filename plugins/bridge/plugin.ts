import { KnownAttachments } from '../../shared/attachments/attachments.ts';
import { oneAtATime } from '../../shared/attachments/one-at-a-time.ts';
import { CniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { runAll } from '../../shared/cni/undo.ts';
import { openNamespace, type NetworkNamespace } from '../../shared/kernel/namespace.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { deleteLink, linkByName, links, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { hasNftables } from '../../shared/packetfilter/nftables/change.ts';
import { add } from './add.ts';
import { collectMasquerade, masqueradeReady, removeMasquerade, type ValidAttachments } from './backend.ts';
import { check } from './check.ts';
import { configure, type BridgeConfig } from './config.ts';
import { otherAddresses } from './container.ts';
import { attachmentOfAlias, findHostEnd, hostEndOf, identify, isHostEndOf, isLabelled } from './identity.ts';
import { ipamOf } from './ipam-plugin.ts';
import { removeMacSpoofCheck, staleMacSpoofChecks } from './nftables/macspoof.ts';
import { noNftables } from './nftables/masquerade.ts';

/** Connects containers to a Linux bridge: docs/reference/plugins/bridge.md. */
export const plugin: Plugin<BridgeConfig> = {
  name: 'bridge',
  supportedVersions: CNI_VERSIONS,
  configure,
  add: (call) => oneAtATime('bridge', call, () => add(call)),
  del: (call) => oneAtATime('bridge', call, () => del(call)),
  check,
  gc,
  status,
};

type RemovalCall = Invocation<Partial<BridgeConfig>>;

/**
 * Removes what ADD created, ours or the reference's, whatever is left of it: the namespace may be gone, empty, or another one by now.
 * Every step is tried. The bridge, its address and forwarding stay, because other containers may use them.
 */
function del(call: RemovalCall): void {
  const { ipMasq, macspoofchk } = call.config;
  // Before anything changes: the node agent passes on a call that needs another IPAM plugin.
  const ipam = ipamOf(call);
  let keep: readonly string[] = [];
  runAll(
    [
      // 1. The interface, before its addresses are released.
      () => (keep = removeInterface(call)),
      // 2. The leases.
      () => ipam?.del(),
      // 3. Masquerading. An invalid key may have been true.
      () => {
        if (ipMasq !== false) removeMasquerade(call, keep);
      },
      // 4. The MAC check.
      () => {
        if (macspoofchk !== false) removeMacSpoofCheck(call);
      },
    ],
    call.warn,
  );
}

/** @returns addresses of the container's other interfaces, whose masquerading rules stay */
function removeInterface(call: RemovalCall): readonly string[] {
  using host = Rtnetlink.open();
  using namespace = openIfPresent(call.netns);
  if (namespace === undefined) {
    removeHostEnd(call, host);
    return [];
  }
  using inside = Rtnetlink.openIn(namespace);
  const link = linkByName(inside, call.ifname);
  if (link !== undefined && isForDeletion(call, { host, inside, namespace }, link)) {
    deleteLink(inside, link.index);
  } else removeHostEnd(call, host);
  // Read after the deletion: the container may have renamed its interface.
  const remaining = otherAddresses(inside, undefined);
  return remaining.length === 0 || isOfAnotherContainer(call, { host, inside, namespace }) ? [] : remaining;
}

interface Sockets {
  readonly host: Rtnetlink;
  readonly inside: Rtnetlink;
  readonly namespace: NetworkNamespace;
}

/** Whether only other containers have interfaces with an alias in this namespace: the path was reused (/proc/PID/ns/net). */
function isOfAnotherContainer({ containerId }: RemovalCall, { host, inside, namespace }: Sockets): boolean {
  const owners = links(inside, { kind: 'veth' }).flatMap(
    (link) => attachmentOfAlias(hostEndOf(host, link, namespace)?.alias)?.containerId ?? [],
  );
  return owners.length > 0 && !owners.includes(containerId);
}

/** A path that is empty, missing or no network namespace: there is no namespace to clean up in. */
function openIfPresent(path: string): NetworkNamespace | undefined {
  if (path === '') return undefined;
  try {
    return openNamespace(path);
  } catch (thrown) {
    if (thrown instanceof CniError) return undefined;
    throw thrown;
  }
}

/**
 * The path may be another container's namespace by now, and the name another network's interface: what belongs to another attachment
 * stays. The alias of the host end names the container; the reference sets none, then prevResult, or the bridge and the leases decide.
 */
function isForDeletion(call: RemovalCall, { host, inside, namespace }: Sockets, link: LinkInfo): boolean {
  if (link.kind !== 'veth') return false;
  const end = hostEndOf(host, link, namespace);
  if (end !== undefined && isHostEndOf(end, identify(call))) return true;
  if (end !== undefined && isLabelled(end)) return false;
  const known = call.prevResult?.interfaces.find(
    ({ name, sandbox }) => name === call.ifname && sandbox !== undefined && sandbox !== '',
  );
  if (known?.mac !== undefined) return known.mac.toLowerCase() === link.mac;
  if (end === undefined || (end.master !== undefined && end.master !== bridgeOf(call, host)?.index))
    return false;
  return !isLeasedToAnother(call, addresses(inside, { index: link.index }));
}

function isLeasedToAnother(
  { network, containerId, config }: RemovalCall,
  held: readonly { readonly address: string }[],
): boolean {
  const known = new KnownAttachments({ network, containerId, config: config.raw ?? {} });
  return held.some(({ address }) =>
    known.leasesOfAddress(address.replace(/\/.*/, '')).some((lease) => lease.containerId !== containerId),
  );
}

/**
 * A process may keep the namespace, and with it the interface, although its path is gone. The host end is found by its derived names, or,
 * if the reference created it, by the name in prevResult.
 */
function removeHostEnd(call: RemovalCall, host: Rtnetlink): void {
  const end = findHostEnd(host, identify(call)) ?? hostEndOfPrevResult(call, host);
  if (end !== undefined) deleteLink(host, end.index);
}

function hostEndOfPrevResult(call: RemovalCall, host: Rtnetlink): LinkInfo | undefined {
  const bridge = bridgeOf(call, host);
  const named = (call.prevResult?.interfaces ?? []).filter(
    ({ sandbox }) => sandbox === undefined || sandbox === '',
  );
  for (const { name, mac } of named) {
    const link = linkByName(host, name);
    // The reference's names are random and may be used again: kind, bridge and MAC must match.
    const matches = link?.kind === 'veth' && link.master !== undefined && link.master === bridge?.index;
    if (matches && link.mac === mac?.toLowerCase() && !isLabelled(link)) return link;
  }
  return undefined;
}

/** Undefined also when the configuration's name is invalid. */
function bridgeOf({ config }: RemovalCall, host: Rtnetlink): LinkInfo | undefined {
  return config.bridge === undefined ? undefined : linkByName(host, config.bridge);
}

/**
 * Removes what attachments left that are not valid any more: pairs with this network's alias, masquerading, leases, and MAC checks of
 * interfaces that no longer exist. Interfaces without an alias stay: their attachment is unknown.
 */
function gc(call: RemovalCall): void {
  const valid = call.validAttachments;
  if (valid === undefined) return;
  const ipam = ipamOf(call);
  runAll(
    [
      () => removeStalePairs(call, valid),
      () => collectMasquerade(call, valid),
      () => removeStaleMacChecks(),
      () => ipam?.gc(),
    ],
    call.warn,
  );
}

function removeStalePairs({ network, warn }: RemovalCall, valid: ValidAttachments): void {
  using host = Rtnetlink.open();
  const keys = new Set(valid.map(({ containerID, ifname }) => `${containerID}/${ifname}`));
  const stale = links(host, { kind: 'veth' }).filter(({ alias }) => {
    const attachment = attachmentOfAlias(alias);
    return attachment?.network === network && !keys.has(`${attachment.containerId}/${attachment.ifname}`);
  });
  runAll(
    stale.map(
      ({ index }) =>
        () =>
          void deleteLink(host, index),
    ),
    warn,
  );
}

function removeStaleMacChecks(): void {
  if (!hasNftables()) return;
  using host = Rtnetlink.open();
  for (const stale of staleMacSpoofChecks((name) => linkByName(host, name) !== undefined))
    removeMacSpoofCheck(stale);
}

/** Whether ADD could succeed: what the configuration needs of the kernel, and the answer of IPAM. */
function status(call: Invocation<BridgeConfig>): void {
  if (call.config.macspoofchk && !hasNftables()) throw noNftables('macspoofchk');
  if (call.config.ipMasq) masqueradeReady(call);
  ipamOf(call)?.status();
}
