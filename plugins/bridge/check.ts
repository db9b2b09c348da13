import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniInterface, CniResult } from '../../shared/cni/types.ts';
import { waitUntil } from '../../shared/kernel/deadline.ts';
import { openNamespace } from '../../shared/kernel/namespace.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { checkContainer } from './check-container.ts';
import { checkHost, type CheckContext } from './check-host.ts';
import { checkPacketFilter } from './check-packetfilter.ts';
import type { BridgeConfig } from './config.ts';
import { identify } from './identity.ts';
import { ipamOf } from './ipam.ts';

/**
 * Whether the network is as ADD left it; read-only. A false alarm makes Nomad destroy a healthy workload's network, so a
 * problem must still be there at a second look; and everything found is named, for the operator who reads one line.
 * @throws CniError
 */
export function check(call: Invocation<BridgeConfig>): void {
  const prevResult = call.prevResult;
  if (prevResult === undefined) {
    throw new CniError(CniCode.InvalidNetworkConfig, 'Required prevResult missing', {
      details: 'CHECK compares with what ADD answered; the runtime has lost it',
    });
  }
  let problems: string[] = [];
  waitUntil(PATIENCE_MS, () => (problems = look(call, prevResult)).length === 0);
  if (problems.length > 0) throw new CniError(CniCode.Internal, problems.join('; '));
  ipamOf(call)?.check();
}

/** For a reload of the packet filter or of a network manager to pass by. */
const PATIENCE_MS = 200;

function look(call: Invocation<BridgeConfig>, prevResult: CniResult): string[] {
  using namespace = openNamespace(call.netns);
  using host = Rtnetlink.open();
  using inside = Rtnetlink.openIn(namespace);
  const context: CheckContext = {
    call,
    prevResult,
    identity: identify(call),
    namespace,
    host,
    inside,
    container: containerInterface(call, prevResult),
  };
  const { problems, link, end } = checkContainer(context);
  return [
    ...problems,
    ...checkHost(context, end),
    ...(link === undefined ? [] : checkPacketFilter(context, link, end)),
  ];
}

/** The interface of prevResult that this call is about. */
function containerInterface({ ifname }: Invocation<BridgeConfig>, prevResult: CniResult): CniInterface {
  const found = prevResult.interfaces.find(({ name, sandbox }) => name === ifname && sandbox);
  if (found !== undefined) return found;
  throw new CniError(
    CniCode.Internal,
    `prevResult lists no interface ${JSON.stringify(ifname)} in a sandbox`,
    {
      details: `it lists: ${prevResult.interfaces.map(({ name }) => name).join(', ') || 'none'}`,
    },
  );
}
