import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { sha512 } from '../../shared/cni/sha512.ts';
import { step } from '../../shared/cni/undo.ts';
import { isErrno, KernelError } from '../../shared/kernel/errno.ts';
import {
  createVeth,
  deleteLink,
  linkByName,
  setLink,
  type LinkInfo,
  type VethSpec,
} from '../../shared/kernel/rtnetlink/links.ts';
import {
  addPortVlans,
  deletePortVlans,
  portVlans,
  type PortVlan,
} from '../../shared/kernel/rtnetlink/bridge-ports.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import {
  disableDad,
  hasOtherContainers,
  ignoreRouterAdvertisements,
  NO_VLAN_FILTERING,
  type Bridge,
} from './bridge.ts';
import { vlanGatewayName } from './config.ts';
import type { AddContext } from './context.ts';
import { randomMac } from './identity.ts';
import { wantedVlans } from './plan.ts';

/** Host-side gateway interface of one VLAN: one end of a veth pair whose other end is a port of that VLAN on the bridge. */
export interface VlanGateway {
  readonly index: number;
  readonly name: string;
  readonly mac: string;
  /** Index of its port on the bridge. */
  readonly port: number | undefined;
}

/**
 * Creates it, or uses the one that an earlier ADD created: all containers of the VLAN share it. The undo removes it only while no
 * other container is on the bridge.
 * @param own index of the port that this ADD created for its container
 */
export function ensureVlanGateway(context: AddContext, bridge: Bridge, own: number): VlanGateway {
  const { host, call } = context;
  const { vlan } = call.config;
  const name = vlanGatewayName(bridge.name, vlan);
  const link = linkByName(host, name) ?? create(context, bridge, name, own);
  if (link.kind !== 'veth') {
    throw new CniError(CniCode.InvalidNetworkConfig, `"${name}" already exists but is not a veth`, {
      details: `the gateway of VLAN ${vlan} needs this name; delete or rename the interface`,
    });
  }
  if (!link.up) step(`bring ${name} up`, () => setLink(host, link.index, { up: true }));
  return { index: link.index, name, mac: link.mac ?? '', port: link.peerIndex };
}

/** Gives a port these VLANs. @param keepDefault keep those that it has */
export function setVlans(
  host: Rtnetlink,
  port: { readonly index: number; readonly name: string },
  vlans: readonly PortVlan[],
  keepDefault: boolean,
): void {
  try {
    if (!keepDefault) {
      const present = portVlans(host, port.index);
      if (present.length > 0) deletePortVlans(host, port.index, present);
    }
    addPortVlans(host, port.index, vlans);
  } catch (thrown) {
    if (!(thrown instanceof KernelError) || !isErrno(thrown, 'EOPNOTSUPP', 'EINVAL')) throw thrown;
    throw new CniError(
      CniCode.UnsupportedField,
      `failed to set the VLANs of ${port.name}: ${thrown.message}`,
      { details: NO_VLAN_FILTERING, cause: thrown },
    );
  }
}

function create({ host, call, undo }: AddContext, bridge: Bridge, name: string, own: number): LinkInfo {
  const { vlan, enabledad } = call.config;
  const pair = vlanGatewayPair(name, bridge.index);
  const portName = pair.name;
  try {
    step(`create ${name}`, () => createVeth(host, pair));
  } catch (thrown) {
    if (!(thrown instanceof CniError) || !isErrno(thrown.cause, 'EEXIST')) throw thrown;
    const present = linkByName(host, name);
    if (present !== undefined) return present;
    throw new CniError(CniCode.Internal, `"${portName}" already exists without ${name} as its other end`, {
      details: `delete the stale interface: ip link del ${portName}`,
      cause: thrown,
    });
  }
  const port = linkByName(host, portName);
  const link = linkByName(host, name);
  if (port === undefined || link === undefined) {
    throw new CniError(CniCode.TryAgainLater, `"${name}" was removed while it was being set up`);
  }
  undo.push(`VLAN gateway ${name}`, () => {
    if (!hasOtherContainers(host, bridge.index, [own, port.index])) deleteLink(host, link.index);
  });
  setVlans(host, port, wantedVlans({ vlan, vlanTrunk: undefined }), false);
  ignoreRouterAdvertisements(link);
  if (!enabledad) disableDad(name);
  return link;
}

/**
 * The port's name is derived from the gateway's. The MACs are random: several hosts may have a gateway of this name in one VLAN, with
 * their uplinks as ports of the bridges.
 */
export function vlanGatewayPair(name: string, bridge: number): VethSpec {
  return {
    name: `veth${sha512(`weft bridge vlan ${name}`).toString('hex', 0, 4)}`,
    master: bridge,
    up: true,
    // The highest of all ports, so that a bridge without a MAC of its own does not take it.
    mac: 'fe'.concat(randomMac().slice(2)),
    peer: { name, mac: randomMac() },
  };
}
