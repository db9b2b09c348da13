import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import { CNI_VERSIONS, type CniResult } from '../../shared/cni/types.ts';
import { runAll } from '../../shared/cni/undo.ts';
import { inNamespace, isNetworkNamespace } from '../../shared/kernel/namespace.ts';
import { readProxyRequest } from './arguments.ts';
import { checkRules } from './check.ts';
import { planDns } from './dns-plan.ts';
import { demandIpv6, feasible } from './feasible.ts';
import { configure, withNodeDefaults, withSoundNodeDefaults, type TproxyOptions } from './options.ts';
import { placeRules, removeRules, withBackends } from './place.ts';
import { planRules } from './plan.ts';
import { keepResolvConf, removeResolvConf, removeStaleResolvConf } from './resolv-conf.ts';
import { probeKernel } from './status.ts';

/** What the network configuration says itself; the node's defaults are read by the verbs that need them. DEL and GC need neither. */
type Config = Partial<TproxyOptions>;

/**
 * Sends an allocation's TCP through its Consul sidecar, and its DNS to Consul. Also installed as consul-cni, the name by which Nomad calls it.
 * See docs/reference/plugins/consul-tproxy.md.
 */
export const plugin: Plugin<Config> = {
  name: 'consul-tproxy',
  supportedVersions: CNI_VERSIONS,
  configure,
  add,
  del,
  check,
  gc,
  status,
};

/** Nomad tries an ADD up to three times on the same namespace, without DEL: each leaves what the last one asked for. */
function add(call: Invocation<Config>): CniResult {
  const { prevResult, warn } = call;
  if (prevResult?.ips.length === 0) {
    throw new CniError(
      CniCode.InvalidNetworkConfig,
      'got no container IPs: the plugins before this one gave the allocation no address',
      {
        details:
          'consul-tproxy comes after the plugin that connects the allocation, usually last in the list',
      },
    );
  }
  const request = readProxyRequest(call.environment['CNI_ARGS'], warn);
  const options = withNodeDefaults(call.config);
  const plan = planRules(request, options);
  inNamespace(call.netns, () => {
    demandIpv6(plan, options, prevResult, warn);
    withBackends(options.backend, warn, (backends) => placeRules(backends, feasible(plan, options), warn));
  });
  const result = prevResult ?? { interfaces: [], ips: [], routes: [], dns: {} };
  const dns = planDns(request, options);
  const told = dns === undefined ? result : { ...result, dns: { ...result.dns, nameservers: [dns.address] } };
  keepResolvConf(call, dns === undefined ? undefined : told.dns);
  return told;
}

/** The namespace may be gone, or another one by now; the rules went with it. */
function del(call: Invocation<Config>): void {
  const { netns, warn } = call;
  const there = netns !== '' && isNetworkNamespace(netns);
  const remove = (): void =>
    inNamespace(netns, () => withBackends(undefined, warn, (backends) => removeRules(backends, warn)));
  runAll([...(there ? [remove] : []), () => removeResolvConf(call)], warn);
}

function check(call: Invocation<Config>): void {
  const options = withSoundNodeDefaults(call.config, call.warn);
  if (options.check === 'off') return;
  const request = readProxyRequest(call.environment['CNI_ARGS'], call.warn);
  inNamespace(call.netns, () =>
    withBackends(options.backend, call.warn, (backends) =>
      checkRules(backends, {
        request,
        options,
        plan: (wanted) => feasible(planRules(wanted, options), options),
        warn: call.warn,
      }),
    ),
  );
}

/** Rules end with their namespace; what can stay behind is a resolv.conf of a namespace that vanished without DEL. */
function gc(call: Invocation<Config>): void {
  removeStaleResolvConf(call);
}

function status(call: Invocation<Config>): void {
  probeKernel(withNodeDefaults(call.config), call.warn);
}
