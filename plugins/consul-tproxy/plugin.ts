import { cachedResults } from '../../shared/attachments/cached-results.ts';
import { oneAtATime } from '../../shared/attachments/one-at-a-time.ts';
import { CniCode, CniError, toCniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { runAll } from '../../shared/cni/undo.ts';
import {
  findNamespace,
  inNamespace,
  inScratchNamespace,
  openNamespace,
} from '../../shared/kernel/namespace.ts';
import { addRules, removeRules, requireIpv6Support, supportedTables, withBackends } from './backends.ts';
import { checkRules } from './check.ts';
import {
  configure,
  withNodeDefaults,
  withValidNodeDefaults,
  type OwnOptions,
  type TproxyOptions,
} from './config.ts';
import { removeResolvConf, removeStaleResolvConf, writeResolvConf } from './dns/netns-resolv-conf.ts';
import { requireSingleLines } from './dns/resolv-conf.ts';
import { reasonNotToChange, requireOwnNamespace } from './namespace-owner.ts';
import { planDns, planRules } from './plan.ts';
import { readProxyRequest, type ProxyRequest } from './request.ts';
import { requireMappedUid } from './user-namespace.ts';

/**
 * Redirects an allocation's TCP through its Consul sidecar, and its DNS to Consul. Also installed as consul-cni, the name that Nomad calls.
 * docs/reference/plugins/consul-tproxy.md.
 */
export const plugin: Plugin<OwnOptions> = {
  name: 'consul-tproxy',
  supportedVersions: CNI_VERSIONS,
  configure,
  add: (call) => oneAtATime('consul-tproxy', call, () => add(call)),
  del: (call) => oneAtATime('consul-tproxy', call, () => del(call)),
  check,
  gc,
  status,
};

/** Nomad repeats an ADD up to three times on the same namespace, without DEL; each leaves what the last one asked for. */
function add(call: Invocation<OwnOptions>): CniResult {
  const { prevResult, warn } = call;
  if (prevResult?.ips.length === 0) {
    throw new CniError(
      CniCode.InvalidNetworkConfig,
      'got no container IPs: prevResult has no address for the allocation',
      {
        details: 'put consul-tproxy after the plugin that connects the allocation, usually last in the list',
      },
    );
  }
  const request = readProxyRequest(call.environment['CNI_ARGS'], warn);
  const options = withNodeDefaults(call.config);
  const plan = planRules(request, options);
  if (prevResult !== undefined) requireSingleLines(prevResult.dns);
  using namespace = openNamespace(call.netns);
  requireOwnNamespace(namespace, call);
  inNamespace(namespace, () => {
    requireMappedUid(request.proxyUid);
    requireIpv6Support(plan, options, prevResult, warn);
    withBackends(options.backend, warn, (backends) =>
      addRules(backends, supportedTables(plan, options), warn),
    );
  });
  const result = prevResult ?? { interfaces: [], ips: [], routes: [], dns: {} };
  const dns = planDns(request, options);
  const withDns =
    dns === undefined ? result : { ...result, dns: { ...result.dns, nameservers: [dns.address] } };
  writeResolvConf(call, dns === undefined ? undefined : withDns.dns);
  return withDns;
}

/** Rules end with their namespace; its path may be another container's, or no namespace at all, by now. */
function del(call: Invocation<OwnOptions>): void {
  runAll([() => delRules(call), () => removeResolvConf(call)], call.warn);
}

function delRules(call: Invocation<OwnOptions>): void {
  const { netns, warn } = call;
  const found = netns === '' ? undefined : findNamespace(netns);
  if (found?.is !== 'open') return;
  using namespace = found.namespace;
  const reason = reasonNotToChange(namespace, call);
  if (reason !== undefined) {
    warn(`${netns}: not changed, because it is the network namespace of another container: ${reason}`);
    return;
  }
  inNamespace(namespace, () => withBackends(undefined, warn, (backends) => removeRules(backends, warn)));
}

function check(call: Invocation<OwnOptions>): void {
  const options = withValidNodeDefaults(call.config, call.warn);
  if (options.check === 'off') return;
  const request = requestToCheck(call, options);
  if (request === undefined) return;
  inNamespace(call.netns, () =>
    withBackends(options.backend, call.warn, (backends) =>
      checkRules(backends, {
        request,
        options,
        plan: (wanted, chosen) => supportedTables(planRules(wanted, chosen), options),
        warn: call.warn,
      }),
    ),
  );
}

/**
 * Nomad's agent builds the arguments anew when it starts, and destroys the allocation's network when CHECK fails: invalid arguments, which say
 * nothing about the rules, are replaced by those of ADD.
 * @returns undefined, after a warning, where the runtime did not cache them
 */
function requestToCheck(
  call: Invocation<OwnOptions>,
  { check: mode }: TproxyOptions,
): ProxyRequest | undefined {
  try {
    return readProxyRequest(call.environment['CNI_ARGS'], call.warn);
  } catch (thrown) {
    if (mode === 'strict') throw thrown;
    const { network, containerId, ifname, warn } = call;
    const cached = cachedResults(network, containerId).find((one) => one.ifname === ifname);
    const args = cached?.args.map(([key, value]) => `${key}=${value}`).join(';') ?? '';
    const consequence =
      args === '' ? 'not checked, because those of ADD are not cached' : 'checked with the arguments of ADD';
    warn(`${toCniError(thrown).message}; ${consequence}`);
    return args === '' ? undefined : readProxyRequest(args, warn);
  }
}

/** Rules end with their namespace; what can remain is the resolv.conf of a namespace that disappeared without DEL. */
function gc(call: Invocation<OwnOptions>): void {
  removeStaleResolvConf(call);
}

/**
 * Whether this host's kernel and programs can hold the rules: adds a sample that uses every kind of rule (nat and filter, owner, conntrack, redirect,
 * DNAT, reject) in a scratch network namespace.
 * @throws CniError 50 with the reason
 */
function status(call: Invocation<OwnOptions>): void {
  const options = withNodeDefaults(call.config);
  try {
    inScratchNamespace(() =>
      withBackends(options.backend, call.warn, ({ chosen }) =>
        chosen.add(supportedTables(planRules(SAMPLE, { ...options, udp: 'reject' }), options)),
      ),
    );
  } catch (thrown) {
    const { message, details } = toCniError(thrown);
    throw new CniError(
      CniCode.PluginNotAvailable,
      `this host cannot hold transparent-proxy rules: ${message}`,
      { ...(details === undefined ? {} : { details }), cause: thrown },
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
