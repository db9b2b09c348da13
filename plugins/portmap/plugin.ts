import { CniCode, CniError, toCniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { runAll, withRollback } from '../../shared/cni/undo.ts';
import { KernelError } from '../../shared/kernel/errno.ts';
import { linkByIndex } from '../../shared/kernel/rtnetlink/links.ts';
import { lookupRoute } from '../../shared/kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { writeSysctl } from '../../shared/kernel/sysctl.ts';
import { formatAddress } from '../../shared/net/address.ts';
import { chooseBackend } from '../../shared/packetfilter/choose-backend.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { PortForwarding, PortmapBackend } from './backend.ts';
import { configure, type PortmapSettings } from './config.ts';
import { iptablesBackend } from './iptables/backend.ts';
import { nftablesBackend } from './nftables/backend.ts';
import { FAMILIES, forwardingsOf, requirePrevResult } from './plan.ts';
import { deleteFlowsFrom, deleteFlowsTo } from './udp-flows.ts';

/** Publishes container ports on the host: docs/reference/plugins/portmap.md. */
export const plugin: Plugin<PortmapSettings> = {
  name: 'portmap',
  supportedVersions: CNI_VERSIONS,
  configure,
  add,
  del,
  check,
  gc,
  status: ({ config }) => {
    backendOf(config);
  },
};

type Call = Invocation<PortmapSettings>;
/** DEL and GC get the valid part of the configuration. */
type RemovalCall = Invocation<Partial<PortmapSettings>>;

function add(call: Call): CniResult {
  const settings = call.config;
  const result = requirePrevResult(call);
  const forwardings = forwardingsOf(call, settings, result);
  if (forwardings.length === 0) return result;
  const backend = backendOf(settings);
  backend.prepare(forwardings);
  return withRollback(call.warn, (undo) => {
    for (const forwarding of forwardings) {
      backend.add(forwarding, call.warn);
      undo.push(`port mappings (${forwarding.family})`, () => remove(call, backend, [forwarding.family]));
      removeConflicts(call, backend, forwarding);
    }
    allowLocalhost(forwardings);
    deleteFlowsTo(forwardings, call.warn);
    return result;
  });
}

/**
 * The back end that is not chosen may have rules from before the node was moved. If it cannot be read or written, ADD goes on; only a
 * port of a running container ends it.
 */
function removeConflicts(call: Call, chosen: PortmapBackend, forwarding: PortForwarding): void {
  for (const [name, other] of Object.entries(BACKENDS)) {
    if (other === chosen) continue;
    try {
      deleteFlowsFrom(other.removeConflicts(forwarding, call.warn), call.warn);
    } catch (thrown) {
      const { code, message } = toCniError(thrown);
      if (code === CniCode.TryAgainLater) throw thrown;
      call.warn(`could not look for older port mappings in ${name}: ${message}`);
    }
  }
}

/**
 * The kernel is made to accept packets from 127.0.0.1 that are forwarded to the container: without route_localnet it drops loopback
 * addresses on the interface through which the host reaches the container. IPv6 has no such switch.
 */
function allowLocalhost(forwardings: readonly PortForwarding[]): void {
  const wanted = forwardings.filter(({ family, settings }) => family === 'ipv4' && settings.snat);
  if (wanted.length === 0) return;
  using rtnetlink = Rtnetlink.open();
  for (const { container } of wanted) {
    const link = lookupRoute(rtnetlink, formatAddress(container.address))?.link;
    const name = link === undefined ? undefined : linkByIndex(rtnetlink, link)?.name;
    if (name !== undefined) writeSysctl(`net/ipv4/conf/${name}/route_localnet`, 1);
  }
}

/**
 * Rules are found by names made of network and container id, in both back ends and families: no mappings, prevResult or namespace is
 * needed. An explicitly empty list of mappings means that ADD made no rules.
 */
function del(call: RemovalCall): void {
  if (call.config.mappings?.length === 0) return;
  runAll(
    Object.values(BACKENDS).map((backend) => () => remove(call, backend, FAMILIES)),
    call.warn,
  );
}

/** A container that was added before the node was moved to another back end is complete in the old one. */
function check(call: Call): void {
  const settings = call.config;
  const forwardings = forwardingsOf(call, settings, requirePrevResult(call));
  if (forwardings.length === 0) return;
  const chosen = backendOf(settings);
  const missing = chosen.missing(forwardings);
  if (missing === undefined) return;
  const others = Object.values(BACKENDS).filter((backend) => backend !== chosen);
  if (others.some((backend) => isComplete(backend, forwardings))) return;
  throw new CniError(CniCode.Internal, `port mappings are incomplete: ${missing}`);
}

/** A back end that this host lacks, or that cannot apply the settings, has no rules. */
function isComplete(backend: PortmapBackend, forwardings: readonly PortForwarding[]): boolean {
  try {
    return backend.missing(forwardings) === undefined;
  } catch (thrown) {
    if (thrown instanceof CniError || thrown instanceof KernelError) return false;
    throw thrown;
  }
}

function gc(call: RemovalCall): void {
  if (call.validAttachments === undefined) return;
  const { network, validAttachments } = call;
  runAll(
    Object.values(BACKENDS).map((backend) => () => {
      deleteFlowsFrom(backend.collect(network, validAttachments, call.warn), call.warn);
    }),
    call.warn,
  );
}

function remove(call: RemovalCall, backend: PortmapBackend, families: readonly Family[]): void {
  deleteFlowsFrom(backend.remove(call, families, call.warn), call.warn);
}

/** Without an explicit back end, a setting that only one of them understands chooses it, else the node's default. */
function backendOf(settings: PortmapSettings): PortmapBackend {
  return BACKENDS[chooseBackend(settings.backend ?? settings.implied)];
}

const BACKENDS = { iptables: iptablesBackend, nftables: nftablesBackend } as const;
