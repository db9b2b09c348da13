import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { UndoStack } from '../../shared/cni/undo.ts';
import { isErrno } from '../../shared/kernel/libc.ts';
import type { NetworkNamespace } from '../../shared/kernel/namespace.ts';
import {
  createVethRequest,
  deleteLink,
  getLinkRequest,
  linkByName,
  linkFrom,
  setLink,
  type LinkInfo,
} from '../../shared/kernel/rtnetlink/links.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import type { Bridge } from './bridge-link.ts';
import { step } from './explain.ts';
import type { Identity } from './identity.ts';
import { isOurs } from './ownership.ts';
import { refuseRouterAdvertisements } from './sysctls.ts';

export interface Pair {
  readonly host: End;
  readonly container: End;
  /** A pair of the same attachment was in the way: an earlier ADD of it was not followed by a DEL. */
  readonly replaced: boolean;
}

export interface End {
  readonly index: number;
  readonly name: string;
  readonly mac: string;
  readonly mtu: number;
}

export interface PairSettings {
  readonly identity: Identity;
  readonly bridge: Bridge;
  readonly namespace: NetworkNamespace;
  readonly ifname: string;
  /** Of the container's end. */
  readonly mac: string;
  readonly mtu: number | undefined;
  /** Whether this link in the container, in the way of ours, is a remainder of the same attachment. */
  readonly isRemainder: (link: LinkInfo) => boolean;
}

/**
 * The pair that connects the container: born with its far end already in the container's namespace under its final name,
 * its near end on the bridge and up, in one message. (Moving a link between namespaces, or deleting one, costs the kernel
 * an RCU grace period, some 15 ms; this costs 0.1 ms.)
 * What an earlier ADD of the same attachment left behind is replaced: Nomad repeats ADD without DEL, and after a failed
 * CHECK the old namespace may live on with the same address.
 * @throws CniError when the container's interface name is taken by something else
 */
export function plugIn(host: Rtnetlink, inside: Rtnetlink, settings: PairSettings, undo: UndoStack): Pair {
  const { identity } = settings;
  let replaced = false;
  for (const name of identity.hostNames) {
    const made = create(host, name, settings) ?? retryInPlace(name);
    if (made !== undefined) return finish(host, made, settings, replaced, undo);
  }
  throw new CniError(CniCode.Internal, `no free name for the host's end of ${settings.ifname}`, {
    details: `all taken by other containers: ${identity.hostNames.join(', ')}`,
  });

  /** Only when the first try met EEXIST, which either name may have caused. */
  function retryInPlace(name: string): LinkInfo | undefined {
    const present = linkByName(host, name);
    if (present !== undefined && !isOurs(present, identity)) return undefined;
    if (present !== undefined) deleteLink(host, present.index);
    else removeRemainder(inside, name, settings);
    replaced = true;
    return create(host, name, settings);
  }
}

/** @returns undefined when one of the two names is taken */
function create(host: Rtnetlink, name: string, settings: PairSettings): LinkInfo | undefined {
  const { identity, bridge, namespace, ifname, mac } = settings;
  const mtu = settings.mtu === undefined ? {} : { mtu: settings.mtu };
  const [made, asked] = host.batch([
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
  const error = made?.error;
  if (error === undefined) return linkFrom(asked?.messages);
  if (isErrno(error, 'EEXIST')) return undefined;
  return step(`connect ${ifname} to bridge "${bridge.name}"`, () => {
    throw error;
  });
}

function removeRemainder(inside: Rtnetlink, hostName: string, settings: PairSettings): void {
  const { ifname } = settings;
  const taken = linkByName(inside, ifname);
  if (taken === undefined) return;
  if (!settings.isRemainder(taken)) {
    throw new CniError(
      CniCode.Internal,
      `container veth name (${JSON.stringify(ifname)}) peer provided (${JSON.stringify(hostName)}) already exists`,
      {
        details: `the container has an interface ${ifname} that is not of this network and container; use another CNI_IFNAME, or DEL what made it`,
      },
    );
  }
  deleteLink(inside, taken.index);
}

function finish(
  host: Rtnetlink,
  made: LinkInfo,
  settings: PairSettings,
  replaced: boolean,
  undo: UndoStack,
): Pair {
  const { identity, ifname, mac, bridge } = settings;
  undo.push(`interface ${made.name}`, () => deleteLink(host, made.index));
  if (made.peerIndex === undefined || made.master !== bridge.index) {
    throw new CniError(
      CniCode.Internal,
      `the kernel made ${made.name} without connecting it to "${bridge.name}"`,
    );
  }
  if (identity.alias !== '') {
    step(`label ${made.name}`, () => setLink(host, made.index, { alias: identity.alias }));
  }
  refuseRouterAdvertisements(made.name);
  return {
    host: { index: made.index, name: made.name, mac: made.mac ?? identity.hostMac, mtu: made.mtu },
    container: { index: made.peerIndex, name: ifname, mac, mtu: made.mtu },
    replaced,
  };
}
