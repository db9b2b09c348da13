import type { CniResult } from '../../shared/cni/results.ts';
import { portVlans, type PortVlan } from '../../shared/kernel/rtnetlink/bridge-ports.ts';
import type { LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { vlanGatewayName, type BridgeConfig } from './config.ts';
import { wantedVlans } from './plan.ts';

/** @returns the VLANs that the port lacks; additional ones are no problem */
export function vlanProblems(
  present: readonly PortVlan[],
  wanted: readonly PortVlan[],
  { name }: Pick<LinkInfo, 'name'>,
): string[] {
  const has = (vid: number, pvid: boolean): boolean =>
    present.some((one) => vid >= one.vid && vid <= (one.lastVid ?? one.vid) && (!pvid || one.pvid === true));
  const missing = wanted.flatMap(({ vid, lastVid = vid, pvid = false }) =>
    Array.from({ length: lastVid - vid + 1 }, (_, at) => vid + at).filter((one) => !has(one, pvid)),
  );
  return missing.length === 0 ? [] : [`${name} does not carry VLAN ${missing.join(', ')}`];
}

/**
 * Whether a port has no VLAN for the untagged frames of its container: ADD leaves every port one, so that this is damage whatever the
 * configuration says.
 */
export function isCutOff({ bridge }: Pick<LinkInfo, 'bridge'>, present: readonly PortVlan[]): boolean {
  return bridge?.vlanFiltering === true && !present.some(({ pvid }) => pvid === true);
}

/** Whether ADD set up the gateway interface of `vlan`: prevResult lists it. */
export function addedVlanGateway(
  { bridge, vlan }: BridgeConfig,
  { interfaces }: Pick<CniResult, 'interfaces'>,
): boolean {
  return vlan !== 0 && interfaces.some(({ name }) => name === vlanGatewayName(bridge, vlan));
}

/** The gateway interface of a VLAN is a veth whose other end is a port of the bridge. */
export function vlanGatewayProblems(
  host: Rtnetlink,
  bridge: LinkInfo,
  link: LinkInfo,
  vlan: number,
): string[] {
  const port = { name: `the port of ${link.name}` };
  const carries =
    bridge.bridge?.vlanFiltering !== true || link.peerIndex === undefined
      ? []
      : vlanProblems(portVlans(host, link.peerIndex), wantedVlans({ vlan, vlanTrunk: undefined }), port);
  return [...(link.up ? [] : [`gateway interface ${link.name} is down`]), ...carries];
}
