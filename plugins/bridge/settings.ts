import { readArgs } from '../../shared/cni/args.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import type { NodeConfig } from '../../shared/config/node-config.ts';
import { linkByIndex } from '../../shared/kernel/rtnetlink/links.ts';
import { routes, type RouteInfo } from '../../shared/kernel/rtnetlink/routes.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import type { BridgeConfig } from './config.ts';
import { MAC_RULE, stationMac } from './mac.ts';
import { isDefaultRoute } from './plan.ts';

/**
 * The MAC that somebody asked for, in the order of the CNI conventions: runtimeConfig, args.cni, CNI_ARGS.
 * @throws CniError 4 for keys of CNI_ARGS that nobody knows, or a MAC there that is none
 */
export function requestedMac(call: Invocation<BridgeConfig>): string | undefined {
  const inArgs = readArgs(call.environment['CNI_ARGS'], ['MAC']).get('MAC');
  if (call.config.mac !== undefined || !inArgs) return call.config.mac;
  const mac = stationMac(inArgs);
  if (mac !== undefined) return mac;
  throw new CniError(
    CniCode.InvalidEnvironment,
    `invalid MAC address in CNI_ARGS: ${JSON.stringify(inArgs)}`,
    {
      details: MAC_RULE,
    },
  );
}

/**
 * The kernel takes `%d` in a name for "the next free number", so the interface would be called otherwise than asked for.
 * CNI's own rules, which are checked before, let it pass.
 * @throws CniError 4
 */
export function requireLiteralName({ ifname }: Pick<Invocation<unknown>, 'ifname'>): void {
  if (!ifname.includes('%')) return;
  throw new CniError(
    CniCode.InvalidEnvironment,
    `CNI_IFNAME must not contain "%", got ${JSON.stringify(ifname)}`,
    { details: 'the kernel would put a number in its place' },
  );
}

/** Bytes, of what the network says, else the node; undefined leaves it to the kernel (1500). */
export function chosenMtu(
  host: Rtnetlink,
  config: Pick<BridgeConfig, 'mtu'>,
  node: Pick<NodeConfig, 'mtu'>,
): number | undefined {
  const wanted = config.mtu ?? node.mtu;
  return wanted === 'auto' ? uplinkMtu(host) : wanted;
}

/** Of the device that the default route leaves by, IPv4's first; a host without one has no uplink to follow. */
function uplinkMtu(host: Rtnetlink): number | undefined {
  for (const family of ['ipv4', 'ipv6'] as const) {
    const [best] = routes(host, { family })
      .filter(
        (route) =>
          isDefaultRoute(route.destination) && route.link !== undefined && route.type === RTN_UNICAST,
      )
      .sort((one, other) => one.priority - other.priority);
    if (best !== undefined) return mtuOf(host, best);
  }
  return undefined;
}

/** linux/rtnetlink.h */
const RTN_UNICAST = 1;

/** A route may say less than its device, e.g. towards a tunnel. */
function mtuOf(host: Rtnetlink, route: RouteInfo): number | undefined {
  const device = linkByIndex(host, route.link ?? 0)?.mtu;
  return route.mtu === undefined || device === undefined ? device : Math.min(route.mtu, device);
}
