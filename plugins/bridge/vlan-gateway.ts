import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { sha512 } from '../../shared/cni/sha512.ts';
import type { UndoStack } from '../../shared/cni/undo.ts';
import { isErrno } from '../../shared/kernel/libc.ts';
import {
  createVeth,
  deleteLink,
  linkByName,
  setLink,
  type LinkInfo,
  type VethSpec,
} from '../../shared/kernel/rtnetlink/links.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { hasOtherContainers, type Bridge } from './bridge-link.ts';
import { step } from './explain.ts';
import { randomMac } from './mac.ts';
import { configurePort } from './port.ts';
import { leaveOutDad, refuseRouterAdvertisements } from './sysctls.ts';
import { vlanGatewayName } from './trunk.ts';

/** The host's own foot in a VLAN of the bridge: one end of a pair whose other end is a port of that VLAN. */
export interface VlanGateway {
  readonly index: number;
  readonly name: string;
  readonly mac: string;
  /** Index of its port on the bridge. */
  readonly port: number | undefined;
}

export interface VlanGatewaySettings {
  readonly vlan: number;
  /** Index of the port that this ADD made for its container. */
  readonly own: number;
  /** Whether one that does not exist yet keeps duplicate address detection. */
  readonly dad: boolean;
}

/**
 * Makes it, or takes the one that an earlier ADD made: all containers of the VLAN share it, as they do the bridge. Taken back
 * only while no other container is on the bridge.
 */
export function ensureVlanGateway(
  host: Rtnetlink,
  bridge: Bridge,
  settings: VlanGatewaySettings,
  undo: UndoStack,
): VlanGateway {
  const { vlan } = settings;
  const name = vlanGatewayName(bridge.name, vlan);
  const link = linkByName(host, name) ?? create(host, bridge, { name, ...settings }, undo);
  if (link.kind !== 'veth') {
    throw new CniError(CniCode.InvalidNetworkConfig, `"${name}" already exists but is not a veth`, {
      details: `it is in the way of the gateway of VLAN ${vlan}`,
    });
  }
  if (!link.up) step(`bring ${name} up`, () => setLink(host, link.index, { up: true }));
  return { index: link.index, name, mac: link.mac ?? '', port: link.peerIndex };
}

function create(
  host: Rtnetlink,
  bridge: Bridge,
  { name, vlan, own, dad }: VlanGatewaySettings & { readonly name: string },
  undo: UndoStack,
): LinkInfo {
  const pair = vlanGatewayPair(name, bridge.index);
  const portName = pair.name;
  try {
    createVeth(host, pair);
  } catch (thrown) {
    if (!isErrno(thrown, 'EEXIST')) step(`create ${name}`, () => rethrow(thrown));
    const theirs = linkByName(host, name);
    if (theirs !== undefined) return theirs;
    throw new CniError(CniCode.Internal, `"${portName}" already exists without ${name} as its other end`, {
      details: 'remove it',
      cause: thrown,
    });
  }
  const port = linkByName(host, portName);
  const link = linkByName(host, name);
  if (port === undefined || link === undefined)
    throw new CniError(CniCode.TryAgainLater, `"${name}" vanished`);
  undo.push(`VLAN gateway ${name}`, () => {
    if (!hasOtherContainers(host, bridge.index, [own, port.index])) deleteLink(host, link.index);
  });
  const config = {
    hairpinMode: false,
    portIsolation: false,
    vlan,
    vlanTrunk: undefined,
    preserveDefaultVlan: false,
  };
  configurePort(host, { index: port.index, name: portName, mac: '', mtu: port.mtu }, config);
  refuseRouterAdvertisements(name);
  if (!dad) leaveOutDad(name);
  return link;
}

/**
 * The port's name follows from the gateway's. The MACs are made up: several hosts may have a gateway of this name in one VLAN, with
 * their uplinks as ports of the bridges.
 */
export function vlanGatewayPair(name: string, bridge: number): VethSpec {
  return {
    name: `veth${sha512(`weft bridge vlan ${name}`).toString('hex', 0, 4)}`,
    master: bridge,
    up: true,
    // The highest of all, so that a bridge without a MAC of its own does not take it.
    mac: 'fe'.concat(randomMac().slice(2)),
    peer: { name, mac: randomMac() },
  };
}

function rethrow(thrown: unknown): never {
  throw thrown;
}
