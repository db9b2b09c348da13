import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/types.ts';
import { withRollback } from '../../shared/cni/undo.ts';
import { readNodeConfig, type NodeConfig } from '../../shared/config/node-config.ts';
import { openNamespace } from '../../shared/kernel/namespace.ts';
import { linkByIndex } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { putMacSpoofCheck, removeMacSpoofCheck } from './nftables/macspoof.ts';
import { addAddresses } from './add-addresses.ts';
import { BridgeVanished, ensureBridge, type Bridge } from './bridge-link.ts';
import type { BridgeConfig } from './config.ts';
import { bringUp } from './container.ts';
import type { AddContext } from './context.ts';
import { identify } from './identity.ts';
import { ipamOf, type Ipam } from './ipam.ts';
import { plugIn } from './pair.ts';
import { announce, configurePort, waitForPort, wantsVlans } from './port.ts';
import { isRemainder } from './remainder.ts';
import { resultOf } from './result.ts';
import { chosenMtu, requestedMac, requireLiteralName } from './settings.ts';

/**
 * Connects the container to the bridge. The same call again gives the same addresses on a new pair. On failure everything
 * is as before, but for two things that others may rely on by then: forwarding stays on, a healed bridge MAC stays.
 * @throws CniError
 */
export function add(call: Invocation<BridgeConfig>): CniResult {
  requireLiteralName(call);
  const mac = requestedMac(call);
  const node = readNodeConfig();
  const ipam = ipamOf(call);
  for (let attempt = 1; ; attempt++) {
    try {
      return attemptAdd(call, { mac, node, ipam });
    } catch (thrown) {
      // Several first ADDs at once: the one that made the bridge failed and took it away under the others.
      if (!(thrown instanceof BridgeVanished) || attempt === ATTEMPTS) throw thrown;
    }
  }
}

const ATTEMPTS = 5;

interface Chosen {
  readonly mac: string | undefined;
  readonly node: NodeConfig;
  readonly ipam: Ipam | undefined;
}

function attemptAdd(call: Invocation<BridgeConfig>, { mac, node, ipam }: Chosen): CniResult {
  const { config, ifname } = call;
  using namespace = openNamespace(call.netns);
  using host = Rtnetlink.open();
  using inside = Rtnetlink.openIn(namespace);
  const mtu = chosenMtu(host, config, node);
  return withRollback(call.warn, (undo) => {
    const bridge = ensureBridge(
      host,
      {
        name: config.bridge,
        mtu,
        vlanFiltering: wantsVlans(config),
        promiscuous: config.promiscMode,
        dad: config.enabledad,
      },
      undo,
    );
    return telling(host, bridge, () => {
      const identity = identify(call);
      const pair = plugIn(
        host,
        inside,
        {
          identity,
          bridge,
          namespace,
          ifname,
          mac: mac ?? identity.containerMac,
          mtu,
          isRemainder: (link) => isRemainder({ host, inside, namespace, bridge, identity, ipam }, link),
        },
        undo,
      );
      const side = { namespace, inside, end: pair.container };
      return connect({ call, ipam, host, side, bridge, pair, undo });
    });
  });
}

/** From the pair to the result. */
function connect(context: AddContext): CniResult {
  const { call, host, side, bridge, pair, undo } = context;
  const { config } = call;
  if (wantsVlans(config) && !bridge.vlanFiltering) {
    call.warn(`bridge ${bridge.name} was made without VLAN filtering: its VLANs are not kept apart`);
  }
  configurePort(host, pair.host, config);
  if (config.macspoofchk) {
    undo.push('the MAC spoofing check', () => removeMacSpoofCheck(call));
    putMacSpoofCheck(call, { hostInterface: pair.host.name, mac: pair.container.mac });
  }
  const added = context.ipam === undefined ? undefined : addAddresses(context, context.ipam);
  if (added === undefined && !config.disableContainerInterface) {
    bringUp(side, config.enabledad);
    waitForPort(host, pair, bridge);
    announce(side.inside, pair.container);
  }
  return resultOf(context, added);
}

/** Whatever goes wrong because the bridge went away is told as that, so that it can be tried again. */
function telling<T>(host: Rtnetlink, bridge: Bridge, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    if (!(thrown instanceof BridgeVanished) && linkByIndex(host, bridge.index) === undefined) {
      throw new BridgeVanished(bridge.name, thrown);
    }
    throw thrown;
  }
}
