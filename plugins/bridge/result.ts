import type { CniDns, CniInterface, CniResult } from '../../shared/cni/types.ts';
import { linkByIndex } from '../../shared/kernel/rtnetlink/links.ts';
import type { AddContext } from './context.ts';
import type { Layer3 } from './plan.ts';
import type { VlanGateway } from './vlan-gateway.ts';

/** What the addresses of an ADD came to. */
export interface AddedAddresses {
  readonly layer3: Layer3;
  readonly dns: CniDns;
  readonly vlanGateway: VlanGateway | undefined;
}

/** Bridge, host's end, container's end, in this order: `ips[].interface` counts on it. Then the VLAN's gateway, if any. */
export function resultOf(context: AddContext, added: AddedAddresses | undefined): CniResult {
  const { call, pair } = context;
  const { host, container } = pair;
  const interfaces: CniInterface[] = [
    describeBridge(context),
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

/** Its MTU may have followed the new port's; only version 1.1 can tell it, so only then it is asked for. */
function describeBridge({ call, host, bridge }: AddContext): CniInterface {
  const { name, mac } = bridge;
  if (call.cniVersion !== '1.1.0') return { name, mac };
  const now = linkByIndex(host, bridge.index);
  return now === undefined ? { name, mac } : { name, mac: now.mac ?? mac, mtu: now.mtu };
}
