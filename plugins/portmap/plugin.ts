import { CniCode, CniError, toCniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import { CNI_VERSIONS, type CniResult } from '../../shared/cni/types.ts';
import { runAll, withRollback } from '../../shared/cni/undo.ts';
import { KernelError } from '../../shared/kernel/errno.ts';
import { chooseBackend } from '../../shared/packetfilter/choose-backend.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { Forwarding, PortmapBackend } from './backend.ts';
import { configure, type PortmapSettings } from './config.ts';
import { iptablesBackend } from './iptables-backend.ts';
import { allowLocalhost } from './localhost.ts';
import { nftablesBackend } from './nftables-backend.ts';
import { needPrevResult, targetOf } from './target.ts';
import { forgetFlowsOf, forgetFlowsTo } from './udp-flows.ts';

/** Leads ports of the host to containers: docs/reference/plugins/portmap.md. */
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
/** For DEL and GC, which work with whatever is valid of the configuration. */
type Removal = Invocation<Partial<PortmapSettings>>;

function add(call: Call): CniResult {
  const settings = call.config;
  const result = needPrevResult(call);
  const forwardings = forwardingsOf(call, settings, result);
  if (forwardings.length === 0) return result;
  const backend = backendOf(settings);
  backend.prepare(forwardings);
  return withRollback(call.warn, (undo) => {
    for (const forwarding of forwardings) {
      backend.put(forwarding, call.warn);
      undo.push(`port mappings (${forwarding.family})`, () => remove(call, backend, [forwarding.family]));
      makeWay(call, backend, forwarding);
    }
    allowLocalhost(forwardings);
    forgetFlowsTo(forwardings, call.warn);
    return result;
  });
}

/**
 * In the backend that does not serve the container: there may be rules from before the node was moved. One that cannot be looked
 * into, or written, is no reason to fail where it is not used; a port that somebody holds there is.
 */
function makeWay(call: Call, backend: PortmapBackend, forwarding: Forwarding): void {
  for (const [name, other] of Object.entries(BACKENDS)) {
    if (other === backend) continue;
    try {
      forgetFlowsOf(other.makeWay(forwarding, call.warn), call.warn);
    } catch (thrown) {
      const { code, message } = toCniError(thrown);
      if (code === CniCode.TryAgainLater) throw thrown;
      call.warn(`older port mappings of ${name} may be in the way: ${message}`);
    }
  }
}

/**
 * Found by names that follow from network and container, so neither the mappings nor a prevResult nor a namespace are
 * needed, and both families are looked into: an earlier ADD may have had an address of the other. An explicitly empty list
 * says that there never were any.
 */
function del(call: Removal): void {
  if (call.config.mappings?.length === 0) return;
  // Both: the node may have been moved from one to the other since, or from the reference to this suite.
  runAll(
    Object.values(BACKENDS).map((backend) => () => remove(call, backend, FAMILIES)),
    call.warn,
  );
}

/**
 * What ADD made is looked for where an ADD of today would put it; a container that came before the node was moved to another
 * backend has it there, complete, and is as well off.
 */
function check(call: Call): void {
  const settings = call.config;
  const forwardings = forwardingsOf(call, settings, needPrevResult(call));
  if (forwardings.length === 0) return;
  const chosen = backendOf(settings);
  const missing = chosen.missing(forwardings);
  if (missing === undefined) return;
  const others = Object.values(BACKENDS).filter((backend) => backend !== chosen);
  if (others.some((backend) => isComplete(backend, forwardings))) return;
  throw new CniError(CniCode.Internal, `port mappings are not complete: ${missing}`);
}

/** A backend that this host lacks, or that cannot have what is wanted, has nothing. */
function isComplete(backend: PortmapBackend, forwardings: readonly Forwarding[]): boolean {
  try {
    return backend.missing(forwardings) === undefined;
  } catch (thrown) {
    if (thrown instanceof CniError || thrown instanceof KernelError) return false;
    throw thrown;
  }
}

function gc(call: Removal): void {
  if (call.validAttachments === undefined) return;
  const { network, validAttachments } = call;
  runAll(
    Object.values(BACKENDS).map((backend) => () => {
      forgetFlowsOf(backend.collect(network, validAttachments, call.warn), call.warn);
    }),
    call.warn,
  );
}

const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];

function remove(call: Removal, backend: PortmapBackend, families: readonly Family[]): void {
  forgetFlowsOf(backend.remove(call, families, call.warn), call.warn);
}

/** One per family in which the container has an address and a mapping applies. */
function forwardingsOf(
  { network, containerId, ifname }: Call,
  settings: PortmapSettings,
  result: CniResult,
): Forwarding[] {
  if ((settings.mappings ?? []).length === 0) return [];
  const target = targetOf(result, ifname);
  return FAMILIES.flatMap((family) => {
    const container = target[family];
    const mappings = (settings.mappings ?? []).filter(({ families }) => families.includes(family));
    if (container === undefined || mappings.length === 0) return [];
    return [{ network, containerId, family, settings, container, mappings }];
  });
}

/** Where no backend is named, what only one of them understands decides: a chain of iptables', or conditions' language. */
function backendOf(settings: PortmapSettings): PortmapBackend {
  return BACKENDS[chooseBackend(settings.backend ?? settings.implied)];
}

const BACKENDS = { iptables: iptablesBackend, nftables: nftablesBackend } as const;
