import { CniCode, CniError, toCniError } from '../../shared/cni/errors.ts';
import { inScratchNamespace } from '../../shared/kernel/namespace.ts';
import { feasible } from './feasible.ts';
import type { TproxyOptions } from './options.ts';
import { withBackends } from './place.ts';
import { planRules } from './plan.ts';
import type { ProxyRequest } from './request.ts';

/**
 * Whether this host's kernel and tools can hold the rules: asked by putting a set that uses every part (both nat and filter, owner,
 * conntrack, redirect, DNAT, reject) into a network namespace made for the question. It ends with this process; the host's own rules and
 * every allocation's are left alone.
 * @throws CniError 50 with the reason
 */
export function probeKernel(options: TproxyOptions, warn: (line: string) => void): void {
  try {
    inScratchNamespace(() =>
      withBackends(options.backend, warn, ({ chosen }) =>
        chosen.apply(feasible(planRules(SAMPLE, { ...options, udp: 'reject' }), options)),
      ),
    );
  } catch (thrown) {
    const { message, details } = toCniError(thrown);
    throw new CniError(
      CniCode.PluginNotAvailable,
      `this host cannot hold transparent-proxy rules: ${message}`,
      {
        ...(details === undefined ? {} : { details }),
        cause: thrown,
      },
    );
  }
}

const SAMPLE: ProxyRequest = {
  proxyUid: { first: 101, last: 101 },
  inboundPort: 20000,
  outboundPort: 15001,
  dns: { address: { family: 'ipv4', text: '192.0.2.1' }, port: 8600 },
  excludeInboundPorts: [{ first: 9000, last: 9001 }],
  excludeOutboundPorts: [],
  excludeOutboundCidrs: { ipv4: [], ipv6: [] },
  excludeUids: [],
};
