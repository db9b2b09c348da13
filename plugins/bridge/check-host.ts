import { formatCidr, parseAddress, parseCidr, type AddressFamily } from '../../shared/net/address.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniInterface, CniResult } from '../../shared/cni/types.ts';
import type { NetworkNamespace } from '../../shared/kernel/namespace.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { linkByName, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { portVlans, type PortVlan } from '../../shared/kernel/rtnetlink/bridge-ports.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import type { BridgeConfig } from './config.ts';
import type { Identity } from './identity.ts';
import { wantedVlans } from './port.ts';
import { missingForwarding } from './sysctls.ts';
import { vlanGatewayName } from './trunk.ts';

export interface CheckContext {
  readonly call: Invocation<BridgeConfig>;
  readonly prevResult: CniResult;
  readonly identity: Identity;
  readonly namespace: NetworkNamespace;
  readonly host: Rtnetlink;
  readonly inside: Rtnetlink;
  /** The container's interface in prevResult. */
  readonly container: CniInterface;
}

/** @param end the host's end of the container's veth, if it has one */
export function checkHost(context: CheckContext, end: LinkInfo | undefined): string[] {
  const { host, call } = context;
  const bridge = linkByName(host, call.config.bridge);
  if (bridge === undefined) return [`bridge ${call.config.bridge} is missing`];
  if (bridge.kind !== 'bridge')
    return [`${bridge.name} is not a bridge but ${bridge.kind ?? 'a plain interface'}`];
  return [
    ...bridgeProblems(context, bridge),
    ...(end === undefined ? [] : portProblems(context, bridge, end)),
    ...(call.config.isGateway ? gatewayProblems(context, bridge) : []),
  ];
}

function bridgeProblems({ call, prevResult }: CheckContext, bridge: LinkInfo): string[] {
  const known = prevResult.interfaces.find(({ name }) => name === bridge.name);
  const problems: string[] = [];
  if (known === undefined) problems.push(`prevResult does not list bridge ${bridge.name}`);
  else if (known.sandbox) problems.push(`prevResult has bridge ${bridge.name} in sandbox ${known.sandbox}`);
  if (known?.mac !== undefined && known.mac.toLowerCase() !== bridge.mac) {
    problems.push(`bridge ${bridge.name} has MAC ${bridge.mac}, it had ${known.mac}`);
  }
  if (!bridge.up) problems.push(`bridge ${bridge.name} is down`);
  // Switched on by somebody else it harms nobody; switched off, the network lacks what it was configured for.
  if (call.config.promiscMode && (bridge.flags & IFF_PROMISC) === 0) {
    problems.push(`bridge ${bridge.name} is not in promiscuous mode`);
  }
  return problems;
}

/** linux/if.h */
const IFF_PROMISC = 0x100;

function portProblems({ call, host }: CheckContext, bridge: LinkInfo, end: LinkInfo): string[] {
  const { hairpinMode, portIsolation } = call.config;
  const problems: string[] = [];
  if (end.master !== bridge.index) problems.push(`${end.name} is not a port of bridge ${bridge.name}`);
  if (!end.up) problems.push(`${end.name} is down`);
  if (end.port !== undefined && hairpinMode && !end.port.hairpin)
    problems.push(`${end.name} is not in hairpin mode`);
  if (end.port !== undefined && portIsolation && !end.port.isolated)
    problems.push(`${end.name} is not isolated`);
  const wanted = wantedVlans(call.config);
  if (wanted.length > 0) problems.push(...vlanProblems(portVlans(host, end.index), wanted, end));
  return problems;
}

/** @returns the VLANs that are missing on the port; more of them than wanted harm nobody */
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

function gatewayProblems(context: CheckContext, bridge: LinkInfo): string[] {
  const { host, call } = context;
  const { vlan } = call.config;
  const link = vlan === 0 ? bridge : linkByName(host, vlanGatewayName(bridge.name, vlan));
  if (link === undefined) return [`gateway interface ${vlanGatewayName(bridge.name, vlan)} is missing`];
  const present = addresses(host, { index: link.index });
  const wanted = gatewayAddresses(context);
  const families = new Set<AddressFamily>(wanted.map(({ family }) => family));
  return [
    ...wanted
      .filter(({ address }) => !present.some((one) => one.address === address && !one.dadFailed))
      .map(({ address }) => `${link.name} lacks the gateway address ${address}`),
    ...missingForwarding([...families]).map(
      (path) => `forwarding is off: ${path.replaceAll('/', '.')} is not 1`,
    ),
  ];
}

/** Gateway and prefix length of every address of this interface; what a chained plugin put on others is not ours to judge. */
function gatewayAddresses({
  prevResult,
  container,
}: CheckContext): { address: string; family: AddressFamily }[] {
  const own = prevResult.interfaces.indexOf(container);
  return prevResult.ips.flatMap(({ address, gateway, interface: on }) => {
    if (on !== undefined && on !== own) return [];
    const cidr = parseCidr(address);
    const parsed = gateway === undefined ? undefined : parseAddress(gateway);
    if (cidr === undefined || parsed === undefined) return [];
    return [{ address: formatCidr({ address: parsed, prefix: cidr.prefix }), family: parsed.family }];
  });
}
