import { readArgs } from '../../shared/cni/environment.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniDns, CniInterface, CniResult } from '../../shared/cni/results.ts';
import { withRollback } from '../../shared/cni/undo.ts';
import { readNodeConfig } from '../../shared/config/node-config.ts';
import { openNamespace } from '../../shared/kernel/namespace.ts';
import { deleteLink, linkByIndex } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { addMasquerade, removeMasquerade } from './backend.ts';
import { BridgeVanished, ensureBridge, type Bridge } from './bridge.ts';
import { MAC_RULE, unicastMac, type BridgeConfig } from './config.ts';
import { bringUp, configureContainer, otherAddresses } from './container.ts';
import type { AddContext } from './context.ts';
import { applyGateway, enableForwarding, planGateway } from './gateway.ts';
import { identify } from './identity.ts';
import { isolatesPorts } from './isolation.ts';
import { ipamOf, type Ipam, type IpamAnswer } from './ipam-plugin.ts';
import { addMacSpoofCheck, removeMacSpoofCheck } from './nftables/macspoof.ts';
import { hasVlans, planLayer3, type Layer3 } from './plan.ts';
import { chosenMtu, rejectOverlappingGateways, rejectOverlappingRanges } from './uplink.ts';
import { announce, configurePort, createVeth, waitForPort, type VethPair } from './veth.ts';
import { ensureVlanGateway, type VlanGateway } from './vlan.ts';

/**
 * Connects the container to the bridge. ADD again gives the same addresses on a new veth pair. If it fails, everything is as before,
 * except for two things that other containers may use by then: forwarding stays on, and a repaired MAC of the bridge stays.
 * @throws CniError
 */
export function add(call: Invocation<BridgeConfig>): CniResult {
  requireLiteralName(call);
  const mac = requestedMac(call);
  const node = readNodeConfig();
  const ipam = ipamOf(call);
  const portIsolation = call.config.portIsolation || isolatesPorts(node);
  const isolatedPort = { ...call, config: { ...call.config, portIsolation } };
  using namespace = openNamespace(call.netns);
  using host = Rtnetlink.open();
  using inside = Rtnetlink.openIn(namespace);
  const identity = identify(call);
  const mtu = chosenMtu(host, call.config, node);
  rejectOverlappingRanges(host, call.config);
  for (let attempt = 1; ; attempt++) {
    try {
      return withRollback(call.warn, (undo) =>
        connect({
          call: isolatedPort,
          identity,
          namespace,
          host,
          inside,
          ipam,
          mac: mac ?? identity.containerMac,
          mtu,
          undo,
        }),
      );
    } catch (thrown) {
      // Of several first ADDs at once, the one that created the bridge failed and removed it.
      if (!(thrown instanceof BridgeVanished) || attempt === ATTEMPTS) throw thrown;
    }
  }
}

const ATTEMPTS = 5;

/** 1. The bridge. */
function connect(context: AddContext): CniResult {
  const bridge = ensureBridge(context);
  return rethrowAsVanished(context, bridge, () => attach(context, bridge));
}

/** 2. The veth pair. 3. Port flags, VLANs and the MAC check. */
function attach(context: AddContext, bridge: Bridge): CniResult {
  const { call, host, ipam, undo } = context;
  const { config } = call;
  const veth = createVeth(context, bridge);
  if (hasVlans(config) && !bridge.vlanFiltering) {
    call.warn(`bridge ${bridge.name} has no VLAN filtering: its VLANs are not separated`);
  }
  configurePort(host, veth.host, config);
  if (config.macspoofchk) {
    undo.push('the MAC spoofing check', () => removeMacSpoofCheck(call));
    addMacSpoofCheck(call, { hostInterface: veth.host.name, mac: veth.container.mac });
  }
  if (ipam !== undefined) return addLayer3(context, bridge, veth, ipam);
  if (!config.disableContainerInterface) connectLayer2(context, bridge, veth);
  return resultOf(context, bridge, veth);
}

function connectLayer2(context: AddContext, bridge: Bridge, veth: VethPair): void {
  bringUp(context, veth.container);
  waitForPort(context.host, veth.host, bridge);
  announce(context.inside, veth.container);
}

/** The gateway address and forwarding are shared with other containers and come last: fewer steps can fail after them. */
function addLayer3(context: AddContext, bridge: Bridge, veth: VethPair, ipam: Ipam): CniResult {
  const { call, host, inside } = context;
  const { config } = call;
  // 4. Addresses from IPAM, compared with those of the bridge.
  const answer = requestAddresses(context, veth, ipam);
  const layer3 = planLayer3(config, answer);
  const vlanGateway =
    config.isGateway && config.vlan !== 0 ? ensureVlanGateway(context, bridge, veth.host.index) : undefined;
  const gatewayLink = vlanGateway ?? bridge;
  const gateway = planGateway(host, gatewayLink, layer3.gateways, config.forceAddress);
  if (call.config.ipamType !== 'host-local') rejectOverlappingGateways(host, config, gateway.add);
  // 5. Sysctls, addresses and routes in the container.
  configureContainer(context, veth.container, layer3);
  // 6. Masquerading.
  if (config.ipMasq) masquerade(context, veth, layer3);
  // 7. The port forwards, the gateway has its addresses, the container's are announced.
  waitForPort(host, veth.host, bridge);
  const own = [veth.host.index, ...(vlanGateway?.port === undefined ? [] : [vlanGateway.port])];
  applyGateway(context, gatewayLink, gateway, { bridge: bridge.index, own });
  announce(inside, veth.container);
  // 8. Forwarding on the host.
  if (config.isGateway) enableForwarding(host, layer3.families);
  return resultOf(context, bridge, veth, { layer3, dns: answer.dns, vlanGateway });
}

function requestAddresses({ host, undo }: AddContext, veth: VethPair, ipam: Ipam): IpamAnswer {
  const answer = ipam.add(veth.replaced);
  undo.push('the leases', answer.undo);
  // Undone before the leases: no other container may get the addresses while this pair exists.
  undo.push(`interface ${veth.host.name}`, () => deleteLink(host, veth.host.index));
  return answer;
}

function masquerade({ call, inside, undo }: AddContext, veth: VethPair, { addresses }: Layer3): void {
  const keep = otherAddresses(inside, veth.container.index);
  undo.push('masquerading', () => removeMasquerade(call, keep));
  addMasquerade(call, { addresses, keep });
}

interface Layer3Result {
  readonly layer3: Layer3;
  readonly dns: CniDns;
  readonly vlanGateway: VlanGateway | undefined;
}

/** Interfaces: bridge, host end, container end, in this order (`ips[].interface` is an index), then the VLAN's gateway, if any. */
function resultOf(context: AddContext, bridge: Bridge, veth: VethPair, added?: Layer3Result): CniResult {
  const { call } = context;
  const { host, container } = veth;
  const interfaces: CniInterface[] = [
    describeBridge(context, bridge),
    { name: host.name, mac: host.mac, mtu: host.mtu },
    { name: container.name, mac: container.mac, mtu: container.mtu, sandbox: call.netns },
  ];
  const vlanGateway = added?.vlanGateway;
  if (vlanGateway !== undefined) interfaces.push({ name: vlanGateway.name, mac: vlanGateway.mac });
  return {
    interfaces,
    ips: added?.layer3.ips ?? [],
    routes: added?.layer3.resultRoutes ?? [],
    dns: call.config.dns ?? added?.dns ?? {},
  };
}

/** The bridge's MTU may have changed with the new port. Only version 1.1 reports it, so only then it is read. */
function describeBridge({ call, host }: AddContext, { index, name, mac }: Bridge): CniInterface {
  if (call.cniVersion !== '1.1.0') return { name, mac };
  const now = linkByIndex(host, index);
  return now === undefined ? { name, mac } : { name, mac: now.mac ?? mac, mtu: now.mtu };
}

/** If the bridge no longer exists, any error is reported as that, so that ADD is tried again. */
function rethrowAsVanished<T>({ host }: AddContext, bridge: Bridge, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    if (!(thrown instanceof BridgeVanished) && linkByIndex(host, bridge.index) === undefined) {
      throw new BridgeVanished(bridge.name, thrown);
    }
    throw thrown;
  }
}

/**
 * The MAC that was asked for, in the order of the CNI conventions: runtimeConfig, args.cni, CNI_ARGS.
 * @throws CniError 4 for unknown keys in CNI_ARGS, or an invalid MAC there
 */
function requestedMac(call: Invocation<BridgeConfig>): string | undefined {
  const inArgs = readArgs(call.environment['CNI_ARGS'], ['MAC']).get('MAC');
  if (call.config.mac !== undefined || !inArgs) return call.config.mac;
  const mac = unicastMac(inArgs);
  if (mac !== undefined) return mac;
  throw new CniError(
    CniCode.InvalidEnvironment,
    `invalid MAC address in CNI_ARGS: ${JSON.stringify(inArgs)} ${MAC_RULE}`,
  );
}

/**
 * The kernel replaces `%d` in a name by the next free number; CNI's own rules allow it.
 * @throws CniError 4
 */
function requireLiteralName({ ifname }: Pick<Invocation<unknown>, 'ifname'>): void {
  if (!ifname.includes('%')) return;
  throw new CniError(
    CniCode.InvalidEnvironment,
    `CNI_IFNAME must not contain "%", got ${JSON.stringify(ifname)}`,
    { details: 'the kernel would replace it by a number' },
  );
}
