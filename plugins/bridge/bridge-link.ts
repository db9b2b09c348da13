import { readFileSync } from 'node:fs';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { UndoStack } from '../../shared/cni/undo.ts';
import { isErrno } from '../../shared/kernel/libc.ts';
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
import { step } from './explain.ts';
import { isZeroMac, randomMac } from './mac.ts';
import { leaveOutDad, refuseRouterAdvertisements } from './sysctls.ts';

export interface BridgeSettings {
  readonly name: string;
  /** For a bridge that does not exist yet; undefined is the kernel's default. */
  readonly mtu: number | undefined;
  readonly vlanFiltering: boolean;
  readonly promiscuous: boolean;
  /** Whether a bridge that does not exist yet keeps duplicate address detection. */
  readonly dad: boolean;
}

export interface Bridge {
  readonly index: number;
  readonly name: string;
  readonly mac: string;
  readonly vlanFiltering: boolean;
}

/**
 * The bridge, up, with a MAC that stays. An existing one is adopted as it is: its MTU and VLAN filtering are its owner's
 * business, and a MAC in use never changes, because every container has it in its neighbour cache.
 * The undo removes a bridge made here, unless another ADD has put a port on it meanwhile.
 */
export function ensureBridge(host: Rtnetlink, settings: BridgeSettings, undo: UndoStack): Bridge {
  const link = linkByName(host, settings.name) ?? create(host, settings, undo);
  if (link.kind !== 'bridge') throw notABridge(link);
  const changes = changesFor(link, settings);
  if (Object.keys(changes).length > 0) {
    step(`prepare bridge "${link.name}"`, () => setLink(host, link.index, changes));
    undo.push(`the changes of bridge ${link.name}`, () => revert(host, link, changes));
  }
  refuseRouterAdvertisements(link.name);
  const mac = changes.mac ?? link.mac ?? '';
  return { index: link.index, name: link.name, mac, vlanFiltering: link.bridge?.vlanFiltering === true };
}

/** Ports of the bridge that containers hang on, other than `own`: while there are any, the bridge is not ours alone. */
export function hasOtherContainers(host: Rtnetlink, bridge: number, own: readonly number[]): boolean {
  return links(host, { master: bridge, kind: 'veth' }).some(({ index }) => !own.includes(index));
}

/** One write: create, then ask for it. Another ADD may be first: then theirs is the bridge. */
function create(host: Rtnetlink, settings: BridgeSettings, undo: UndoStack): LinkInfo {
  const { name, mtu, vlanFiltering, dad } = settings;
  const [made, asked] = host.batch([
    createBridgeRequest({
      name,
      mac: randomMac(),
      up: true,
      ...(mtu === undefined ? {} : { mtu }),
      ...(vlanFiltering ? { vlanFiltering } : {}),
    }),
    getLinkRequest(name),
  ]);
  const error = made?.error;
  if (error !== undefined && !isErrno(error, 'EEXIST')) throw cannotCreate(settings, error);
  const link = linkFrom(asked?.messages);
  if (link === undefined) throw new BridgeVanished(name);
  if (error === undefined) {
    undo.push(`bridge ${name}`, () => removeIfUnused(host, link.index));
    if (!dad) leaveOutDad(name);
  }
  return link;
}

function removeIfUnused(host: Rtnetlink, index: number): void {
  if (links(host, { master: index }).length === 0) deleteLink(host, index);
}

/**
 * A bridge whose MAC nobody set takes the lowest MAC of its ports, changes it as they come and go, and has 00:00:00:00:00:00
 * without any. Setting the MAC that it has makes it stay; all zeros is replaced (no port can be using that one).
 */
function changesFor(link: LinkInfo, { promiscuous }: BridgeSettings): LinkChange {
  const zero = isZeroMac(link.mac);
  const pinned = !zero && isPinned(link.name);
  return {
    ...(link.up ? {} : { up: true }),
    ...(promiscuous && (link.flags & IFF_PROMISC) === 0 ? { promisc: true } : {}),
    ...(pinned || link.mac === undefined ? {} : { mac: zero ? randomMac() : link.mac }),
  };
}

/** linux/if.h; for links this bit tells what was asked for, not what a packet capture does meanwhile. */
const IFF_PROMISC = 0x100;
/** linux/netdevice.h: NET_ADDR_SET, an administrator gave it. */
const NET_ADDR_SET = '3';

/** rtnetlink does not tell; a host without /sys gets a MAC set again, which changes nothing. */
function isPinned(name: string): boolean {
  try {
    return readFileSync(`/sys/class/net/${name}/addr_assign_type`, 'latin1').trim() === NET_ADDR_SET;
  } catch {
    return false;
  }
}

/** A healed MAC stays; switching off what another container relies on would be worse than leaving it on. */
function revert(host: Rtnetlink, link: LinkInfo, changes: LinkChange): void {
  if (hasOtherContainers(host, link.index, [])) return;
  const back = {
    ...(changes.up === true ? { up: false } : {}),
    ...(changes.promisc === true ? { promisc: false } : {}),
  };
  if (Object.keys(back).length > 0) setLink(host, link.index, back);
}

/** Thrown when the bridge that an ADD began with is gone: the failed ADD that had made it took it back. Worth another try. */
export class BridgeVanished extends CniError {
  constructor(name: string, cause?: unknown) {
    super(CniCode.TryAgainLater, `bridge "${name}" was removed while an interface was being put on it`, {
      details: 'something else on this host removes it; try again',
      cause,
    });
  }
}

function notABridge({ name, kind }: LinkInfo): CniError {
  return new CniError(CniCode.InvalidNetworkConfig, `"${name}" already exists but is not a bridge`, {
    details: `it is ${kind === undefined ? 'a plain network interface' : `of kind ${kind}`}; name another one in "bridge"`,
  });
}

function cannotCreate({ name, vlanFiltering }: BridgeSettings, error: Error): CniError {
  const noVlans = vlanFiltering && isErrno(error, 'EOPNOTSUPP', 'EINVAL');
  return new CniError(
    noVlans ? CniCode.UnsupportedField : CniCode.Internal,
    `failed to create bridge "${name}": ${error.message}`,
    {
      ...(noVlans ? { details: NO_VLAN_FILTERING } : {}),
      cause: error,
    },
  );
}

export const NO_VLAN_FILTERING =
  'vlan and vlanTrunk need a kernel with VLAN filtering for bridges (CONFIG_BRIDGE_VLAN_FILTERING), which this one lacks';
