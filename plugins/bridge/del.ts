import { CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import { runAll } from '../../shared/cni/undo.ts';
import { openNamespace, type NetworkNamespace } from '../../shared/kernel/namespace.ts';
import { deleteLink, linkByName, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { removeMacSpoofCheck } from './nftables/macspoof.ts';
import { hasNftables } from '../../shared/packetfilter/nftables/change.ts';
import type { BridgeConfig } from './config.ts';
import { otherAddresses } from './container.ts';
import { identify } from './identity.ts';
import { ipamOf } from './ipam.ts';
import { removeMasquerade } from './masquerade.ts';
import { findHostEnd, hostEndOf, isLabelled, isOurs } from './ownership.ts';

type Call = Invocation<Partial<BridgeConfig>>;

/**
 * Takes away what ADD made, ours or the reference's, whatever is left of it: the namespace may be gone, empty, or another
 * one by now. Every step is tried; the bridge, its address and forwarding stay, others may use them.
 * The addresses are given free after the interface that has them is gone.
 */
export function del(call: Call): void {
  let keep: readonly string[] = [];
  runAll(
    [
      () => (keep = removeInterface(call)),
      () => ipamOf(call)?.del(),
      () => {
        if (call.config.ipMasq !== false) removeMasquerade(call, keep);
      },
      () => {
        if (call.config.macspoofchk !== false && hasNftables()) removeMacSpoofCheck(call);
      },
    ],
    call.warn,
  );
}

/** @returns addresses of the container's other interfaces: what shares a chain with this one and must stay */
function removeInterface(call: Call): readonly string[] {
  using host = Rtnetlink.open();
  using namespace = openIfThere(call.netns);
  if (namespace === undefined) {
    removeFromHost(call, host);
    return [];
  }
  using inside = Rtnetlink.openIn(namespace);
  const link = linkByName(inside, call.ifname);
  const keep = otherAddresses(inside, link?.index);
  if (link !== undefined && isForDeletion(call, { host, namespace }, link)) deleteLink(inside, link.index);
  else removeFromHost(call, host);
  return keep;
}

/** A path that is empty, gone, or of something else: whatever the reason, there is no namespace to work in. */
function openIfThere(path: string): NetworkNamespace | undefined {
  if (path === '') return undefined;
  try {
    return openNamespace(path);
  } catch (thrown) {
    if (thrown instanceof CniError) return undefined;
    throw thrown;
  }
}

/**
 * The path may lead to another container's namespace by now, and the name to another network's interface: what certainly
 * belongs to somebody else stays. An interface of the reference carries no label: for it speak prevResult or its bridge.
 */
function isForDeletion(
  call: Call,
  { host, namespace }: { readonly host: Rtnetlink; readonly namespace: NetworkNamespace },
  link: LinkInfo,
): boolean {
  if (link.kind !== 'veth') return false;
  const end = hostEndOf(host, link, namespace);
  if (end !== undefined && isOurs(end, identify(call))) return true;
  if (end !== undefined && isLabelled(end)) return false;
  const known = call.prevResult?.interfaces.find(
    ({ name, sandbox }) => name === call.ifname && sandbox !== undefined && sandbox !== '',
  );
  if (known?.mac !== undefined) return known.mac.toLowerCase() === link.mac;
  const bridge = bridgeOf(call, host);
  return end !== undefined && (end.master === undefined || end.master === bridge?.index);
}

/**
 * The namespace may live on without its name, held by a process: then its interface does too. The host's end is found
 * under our names for it, or, if the reference made it, under the one in prevResult.
 */
function removeFromHost(call: Call, host: Rtnetlink): void {
  const end = findHostEnd(host, identify(call)) ?? fromPrevResult(call, host);
  if (end !== undefined) deleteLink(host, end.index);
}

function fromPrevResult(call: Call, host: Rtnetlink): LinkInfo | undefined {
  const bridge = bridgeOf(call, host);
  const named = (call.prevResult?.interfaces ?? []).filter(
    ({ sandbox }) => sandbox === undefined || sandbox === '',
  );
  for (const { name, mac } of named) {
    const link = linkByName(host, name);
    // Names of veths are random and may come again: kind, bridge and MAC must agree.
    const agrees = link?.kind === 'veth' && link.master !== undefined && link.master === bridge?.index;
    if (agrees && link.mac === mac?.toLowerCase() && !isLabelled(link)) return link;
  }
  return undefined;
}

/** Undefined also when the configuration's name is invalid. */
function bridgeOf({ config }: Call, host: Rtnetlink): LinkInfo | undefined {
  return config.bridge === undefined ? undefined : linkByName(host, config.bridge);
}
