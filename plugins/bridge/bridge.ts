import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { step, type UndoStack } from '../../shared/cni/undo.ts';
import { isErrno } from '../../shared/kernel/errno.ts';
import { readKernelFile } from '../../shared/kernel/files.ts';
import {
  createBridgeRequest,
  deleteLink,
  getLinkRequest,
  linkByName,
  linkFrom,
  links,
  setLink,
  type LinkChange,
  type LinkInfo,
} from '../../shared/kernel/rtnetlink/links.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { setSysctl, writeSysctl } from '../../shared/kernel/sysctl.ts';
import type { AddContext } from './context.ts';
import { isZeroMac, randomMac } from './identity.ts';
import { hasVlans } from './plan.ts';

export interface Bridge {
  readonly index: number;
  readonly name: string;
  readonly mac: string;
  readonly vlanFiltering: boolean;
}

/**
 * The bridge, up, with a permanent MAC. An existing one keeps its MTU, its VLAN filtering and its MAC, which every container has in its
 * neighbour cache. The undo removes a bridge created here, unless another ADD has attached a port to it meanwhile.
 */
export function ensureBridge({ call, host, mtu, undo }: AddContext): Bridge {
  const { bridge: name, promiscMode } = call.config;
  const link = linkByName(host, name) ?? create(host, { ...call.config, mtu }, undo);
  if (link.kind !== 'bridge') throw notABridge(link);
  const changes = changesFor(link, promiscMode);
  if (Object.keys(changes).length > 0) {
    step(`prepare bridge "${name}"`, () => setLink(host, link.index, changes));
    undo.push(`changes of bridge ${name}`, () => revert(host, link, changes));
  }
  ignoreRouterAdvertisements(link);
  const mac = changes.mac ?? link.mac ?? '';
  return { index: link.index, name: link.name, mac, vlanFiltering: link.bridge?.vlanFiltering === true };
}

/** Whether the bridge has ports of containers, other than `own`: then its address and settings are in use. */
export function hasOtherContainers(host: Rtnetlink, bridge: number, own: readonly number[]): boolean {
  return links(host, { master: bridge, kind: 'veth' }).some(({ index }) => !own.includes(index));
}

/** ADD found the bridge and it is gone now: the ADD that created it failed and removed it. ADD is tried again. */
export class BridgeVanished extends CniError {
  constructor(name: string, cause?: unknown) {
    super(CniCode.TryAgainLater, `bridge "${name}" was removed while an interface was being attached to it`, {
      details: 'find out what removes it on this host, then try again',
      cause,
    });
  }
}

/**
 * A bridge and its ports must not take an IPv6 default route from a container that sends router advertisements. The value 2
 * ("even when forwarding") is an operator's choice, for example on a bridge that has the uplink as a port, and stays.
 */
export function ignoreRouterAdvertisements({ name, acceptRa }: Pick<LinkInfo, 'name' | 'acceptRa'>): void {
  if (acceptRa === 1) ignoringAbsence(() => setSysctl(`net/ipv6/conf/${name}/accept_ra`, 0));
}

/**
 * For a new link that is the containers' gateway, before it has a carrier. While duplicate address detection checks its link-local
 * address (one to two seconds), the kernel sends no neighbour solicitations for forwarded packets: a container that has not sent
 * anything yet would be unreachable for as long.
 */
export function disableDad(name: string): void {
  ignoringAbsence(() => void writeSysctl(`net/ipv6/conf/${name}/accept_dad`, 0));
}

export function ignoringAbsence(work: () => void): void {
  try {
    work();
  } catch (thrown) {
    if (!isErrno(thrown, 'ENOENT', 'EROFS', 'EACCES', 'EPERM')) throw thrown;
  }
}

export const NO_VLAN_FILTERING =
  'vlan and vlanTrunk need a kernel with VLAN filtering for bridges (CONFIG_BRIDGE_VLAN_FILTERING), which this one lacks';

type NewBridge = Pick<AddContext['call']['config'], 'bridge' | 'vlan' | 'vlanTrunk' | 'enabledad'> &
  Pick<AddContext, 'mtu'>;

/** Creates the bridge and reads it in one write. If another ADD was first, it reads that one. */
function create(host: Rtnetlink, settings: NewBridge, undo: UndoStack): LinkInfo {
  const { bridge: name, mtu, enabledad } = settings;
  const vlanFiltering = hasVlans(settings);
  const [created, read] = host.batch([
    createBridgeRequest({
      name,
      mac: randomMac(),
      up: true,
      ...(mtu === undefined ? {} : { mtu }),
      ...(vlanFiltering ? { vlanFiltering } : {}),
    }),
    getLinkRequest(name),
  ]);
  const error = created?.error;
  if (error !== undefined && !isErrno(error, 'EEXIST')) throw cannotCreate(name, vlanFiltering, error);
  const link = linkFrom(read?.messages);
  if (link === undefined) throw new BridgeVanished(name);
  if (error === undefined) {
    undo.push(`bridge ${name}`, () => removeIfUnused(host, link.index));
    if (!enabledad) disableDad(name);
  }
  return link;
}

function removeIfUnused(host: Rtnetlink, index: number): void {
  if (links(host, { master: index }).length === 0) deleteLink(host, index);
}

/**
 * Without a MAC set by a user, a bridge has the lowest MAC of its ports, which changes as they come and go, and 00:00:00:00:00:00
 * without ports. Setting the MAC that it has makes it permanent; all zeros is replaced.
 */
function changesFor(link: LinkInfo, promiscuous: boolean): LinkChange {
  const zero = isZeroMac(link.mac);
  const permanent = !zero && isPermanent(link.name);
  return {
    ...(link.up ? {} : { up: true }),
    ...(promiscuous && !isPromiscuous(link) ? { promisc: true } : {}),
    ...(permanent || link.mac === undefined ? {} : { mac: zero ? randomMac() : link.mac }),
  };
}

/** Whether promiscuous mode was asked for; the kernel does not set this flag for a packet capture. */
export function isPromiscuous({ flags }: Pick<LinkInfo, 'flags'>): boolean {
  return (flags & IFF_PROMISC) !== 0;
}

/** linux/if.h */
const IFF_PROMISC = 0x100;
/** linux/netdevice.h: NET_ADDR_SET, set by a user. */
const NET_ADDR_SET = '3';

/** Rtnetlink does not report it. Without /sys the MAC is set again, which changes nothing. */
function isPermanent(name: string): boolean {
  try {
    return readKernelFile(`/sys/class/net/${name}/addr_assign_type`).trim() === NET_ADDR_SET;
  } catch {
    return false;
  }
}

/** The MAC stays, and so does everything while other containers use the bridge. */
function revert(host: Rtnetlink, link: LinkInfo, changes: LinkChange): void {
  if (hasOtherContainers(host, link.index, [])) return;
  const before = {
    ...(changes.up === true ? { up: false } : {}),
    ...(changes.promisc === true ? { promisc: false } : {}),
  };
  if (Object.keys(before).length > 0) setLink(host, link.index, before);
}

function notABridge({ name, kind }: LinkInfo): CniError {
  return new CniError(CniCode.InvalidNetworkConfig, `"${name}" already exists but is not a bridge`, {
    details: `it is ${kind === undefined ? 'a plain network interface' : `of kind ${kind}`}; choose another name in "bridge"`,
  });
}

function cannotCreate(name: string, vlanFiltering: boolean, error: Error): CniError {
  const noVlans = vlanFiltering && isErrno(error, 'EOPNOTSUPP', 'EINVAL');
  return new CniError(
    noVlans ? CniCode.UnsupportedField : CniCode.Internal,
    `failed to create bridge "${name}": ${error.message}`,
    { ...(noVlans ? { details: NO_VLAN_FILTERING } : {}), cause: error },
  );
}
