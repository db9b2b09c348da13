import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { step } from '../../shared/cni/undo.ts';
import { waitUntil } from '../../shared/kernel/deadline.ts';
import { isErrno } from '../../shared/kernel/errno.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import {
  createVethRequest,
  deleteLink,
  getLinkRequest,
  linkByIndex,
  linkByName,
  linkFrom,
  setLink,
  type LinkInfo,
} from '../../shared/kernel/rtnetlink/links.ts';
import { setBridgePort } from '../../shared/kernel/rtnetlink/bridge-ports.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { BridgeVanished, ignoreRouterAdvertisements, type Bridge } from './bridge.ts';
import type { BridgeConfig } from './config.ts';
import type { AddContext } from './context.ts';
import { hostEndOf, isHostEndOf, isLabelled } from './identity.ts';
import { wantedVlans } from './plan.ts';
import { setVlans } from './vlan.ts';

export interface VethPair {
  readonly host: VethEnd;
  readonly container: VethEnd;
  /** A pair of the same attachment existed: an earlier ADD was not followed by DEL. */
  readonly replaced: boolean;
}

export interface VethEnd {
  readonly index: number;
  readonly name: string;
  readonly mac: string;
  readonly mtu: number;
}

/**
 * Creates the pair that connects the container in one message: the container end appears in the container's namespace under its final
 * name, the host end is up and a port of the bridge. (Moving a link between namespaces, or deleting one, waits for an RCU grace period,
 * about 15 ms; this takes 0.1 ms.)
 * A pair of an earlier ADD of the same attachment is replaced: Nomad repeats ADD without DEL, and after a failed CHECK the old namespace
 * may still exist with the same address.
 * @throws CniError when the container has another interface of this name
 */
export function createVeth(context: AddContext, bridge: Bridge): VethPair {
  const { host, identity, call } = context;
  let replaced = false;
  for (const name of identity.hostNames) {
    const created = create(context, bridge, name) ?? replaceAndCreate(name);
    if (created !== undefined) return complete(context, bridge, created, replaced);
  }
  throw new CniError(CniCode.Internal, `no free name for the host end of ${call.ifname}`, {
    details: `other containers have ${identity.hostNames.join(', ')}`,
  });

  /** After EEXIST, which either of the two names may have caused. */
  function replaceAndCreate(name: string): LinkInfo | undefined {
    const present = linkByName(host, name);
    if (present !== undefined && !isHostEndOf(present, identity)) return undefined;
    if (present !== undefined) deleteLink(host, present.index);
    else removeStale(context, bridge, name);
    replaced = true;
    return create(context, bridge, name);
  }
}

/** Flags and VLANs of the port. A new port has the flags off. */
export function configurePort(host: Rtnetlink, port: VethEnd, config: BridgeConfig): void {
  const { hairpinMode, portIsolation } = config;
  if (hairpinMode || portIsolation) {
    step(`set the bridge port flags of ${port.name}`, () =>
      setBridgePort(host, port.index, {
        ...(hairpinMode ? { hairpin: true } : {}),
        ...(portIsolation ? { isolated: true } : {}),
      }),
    );
  }
  const vlans = wantedVlans(config);
  if (vlans.length > 0) setVlans(host, port, vlans, config.preserveDefaultVlan);
}

/**
 * Waits until the bridge forwards frames of the new port. Reading the link makes the kernel process the carrier at once, so the first
 * answer is `up`; kernels before 6.7 need a moment.
 */
export function waitForPort(host: Rtnetlink, port: VethEnd, bridge: Bridge): void {
  let link: LinkInfo | undefined;
  const forwards = (): boolean => {
    link = linkByIndex(host, port.index);
    if (link === undefined || link.master !== bridge.index) throw new BridgeVanished(bridge.name);
    return link.operState === 'up';
  };
  if (waitUntil(FORWARDING_TIMEOUT_MS, forwards)) return;
  throw new CniError(CniCode.TryAgainLater, `bridge port in error state: ${link?.operState ?? 'missing'}`, {
    details: `${port.name} on bridge "${bridge.name}" got no carrier within ${FORWARDING_TIMEOUT_MS} ms`,
  });
}

/** As long as the reference waits, in total. */
const FORWARDING_TIMEOUT_MS = 2550;

/**
 * Announces the MAC of the container's addresses to the bridge. Otherwise a neighbour that talked to an earlier container with the same
 * address sends to the old MAC until its cache entry expires, after 9 to 31 s.
 * Setting a MAC, even the same one, makes the kernel send gratuitous ARP and neighbour advertisements (arp_notify and ndisc_notify
 * are on). Not when the link comes up: its port does not forward yet.
 */
export function announce(inside: Rtnetlink, { index, name, mac }: VethEnd): void {
  step(`announce the addresses of ${name}`, () => setLink(inside, index, { mac }));
}

/** @returns undefined when one of the two names exists */
function create(context: AddContext, bridge: Bridge, name: string): LinkInfo | undefined {
  const { host, identity, namespace, call, mac } = context;
  const { ifname } = call;
  const mtu = context.mtu === undefined ? {} : { mtu: context.mtu };
  const [created, read] = host.batch([
    createVethRequest({
      name,
      mac: identity.hostMac,
      master: bridge.index,
      up: true,
      ...mtu,
      peer: { name: ifname, mac, namespaceFd: namespace.fd, ...mtu },
    }),
    getLinkRequest(name),
  ]);
  const error = created?.error;
  if (error === undefined) return linkFrom(read?.messages);
  if (isErrno(error, 'EEXIST')) return undefined;
  return step(`connect ${ifname} to bridge "${bridge.name}"`, () => {
    throw error;
  });
}

function removeStale(context: AddContext, bridge: Bridge, hostName: string): void {
  const { inside, call } = context;
  const present = linkByName(inside, call.ifname);
  if (present === undefined) return;
  if (!isStale(context, bridge, present)) {
    throw new CniError(
      CniCode.Internal,
      `container veth name (${JSON.stringify(call.ifname)}) peer provided (${JSON.stringify(hostName)}) already exists`,
      {
        details: `interface ${call.ifname} in the container does not belong to this network and container; choose another CNI_IFNAME, or run DEL for the attachment that owns it`,
      },
    );
  }
  deleteLink(inside, present.index);
}

/**
 * Whether an interface of the wanted name was created by an earlier ADD of the same attachment: by its alias; or, if the reference
 * created it (without an alias, under a random name), if it is on this bridge and its address is leased to this attachment.
 */
function isStale(
  { host, inside, namespace, identity, ipam }: AddContext,
  bridge: Bridge,
  link: LinkInfo,
): boolean {
  const end = hostEndOf(host, link, namespace);
  if (end === undefined) return false;
  if (isHostEndOf(end, identity)) return true;
  if (isLabelled(end) || end.master !== bridge.index || ipam === undefined) return false;
  const held = addresses(inside, { index: link.index }).map(({ address }) => address);
  return held.length > 0 && ipam.holds(held);
}

function complete(context: AddContext, bridge: Bridge, created: LinkInfo, replaced: boolean): VethPair {
  const { host, identity, call, mac, undo } = context;
  undo.push(`interface ${created.name}`, () => deleteLink(host, created.index));
  if (created.peerIndex === undefined || created.master !== bridge.index) {
    throw new CniError(
      CniCode.Internal,
      `the kernel created ${created.name} without connecting it to "${bridge.name}"`,
    );
  }
  if (identity.alias !== '') {
    step(`label ${created.name}`, () => setLink(host, created.index, { alias: identity.alias }));
  }
  ignoreRouterAdvertisements(created);
  const { mtu } = created;
  return {
    host: { index: created.index, name: created.name, mac: created.mac ?? identity.hostMac, mtu },
    container: { index: created.peerIndex, name: call.ifname, mac, mtu },
    replaced,
  };
}
