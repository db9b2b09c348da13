import { unplugFirst, type AddContext } from './context.ts';
import { configureContainer, otherAddresses } from './container.ts';
import { applyGateway, keepDefaultRouteOfHost, planGateway } from './gateway.ts';
import type { Ipam } from './ipam.ts';
import { putMasquerade, removeMasquerade } from './masquerade.ts';
import { planLayer3, type Layer3 } from './plan.ts';
import { announce, waitForPort } from './port.ts';
import type { AddedAddresses } from './result.ts';
import { enableForwarding } from './sysctls.ts';
import { ensureVlanGateway } from './vlan-gateway.ts';

/**
 * Addresses from IPAM, on container and bridge. What others share comes last (gateway address, forwarding): the less can
 * fail after it, the less has to be taken back from under them.
 */
export function addAddresses(context: AddContext, ipam: Ipam): AddedAddresses {
  const { call, host, side, bridge, pair, undo } = context;
  const { config } = call;
  const answer = ipam.add(pair.replaced);
  undo.push('the reserved addresses', answer.undo);
  unplugFirst(context);
  const layer3 = planLayer3(config, answer);
  const vlanGateway =
    config.isGateway && config.vlan !== 0
      ? ensureVlanGateway(
          host,
          bridge,
          { vlan: config.vlan, own: pair.host.index, dad: config.enabledad },
          undo,
        )
      : undefined;
  const gateway = planGateway(host, vlanGateway ?? bridge, layer3.gateways, config.forceAddress);
  configureContainer(side, layer3, config.enabledad);
  if (config.ipMasq) masquerade(context, layer3);
  waitForPort(host, pair, bridge);
  const own = [pair.host.index, ...(vlanGateway?.port === undefined ? [] : [vlanGateway.port])];
  const options = { dad: config.enabledad, bridge: bridge.index, own };
  applyGateway(host, vlanGateway ?? bridge, gateway, options, undo);
  announce(side.inside, pair.container);
  if (config.isGateway) enableForwarding(layer3.families, () => keepDefaultRouteOfHost(host));
  return { layer3, dns: answer.dns, vlanGateway };
}

function masquerade({ call, side, undo }: AddContext, { addresses }: Layer3): void {
  const keep = otherAddresses(side.inside, side.end.index);
  undo.push('masquerading', () => removeMasquerade(call, keep));
  putMasquerade(call, { addresses, keep });
}
