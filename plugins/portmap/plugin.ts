import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import { needSettings, settingsIfValid } from '../../shared/cni/settings.ts';
import { CNI_VERSIONS, type CniResult } from '../../shared/cni/types.ts';
import { runAll, withRollback } from '../../shared/cni/undo.ts';
import { chooseBackend } from '../../shared/packetfilter/choose-backend.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { Forwarding, PortmapBackend } from './backend.ts';
import { configure, type PortmapConfig, type PortmapSettings } from './config.ts';
import { iptablesBackend } from './iptables-backend.ts';
import { allowLocalhost } from './localhost.ts';
import { isIptablesSyntax } from './conditions.ts';
import { nftablesBackend } from './nftables-backend.ts';
import { needPrevResult, targetOf } from './target.ts';
import { forgetFlowsOf, forgetFlowsTo } from './udp-flows.ts';

/** Leads ports of the host to containers: docs/plugins/portmap.md. */
export const plugin: Plugin<PortmapConfig> = {
  name: 'portmap',
  supportedVersions: CNI_VERSIONS,
  configure,
  add,
  del,
  check,
  gc,
  status: ({ config }) => {
    backendOf(needSettings(config));
  },
};

type Call = Invocation<PortmapConfig>;

function add(call: Call): CniResult {
  const settings = needSettings(call.config);
  const result = needPrevResult(call);
  const forwardings = forwardingsOf(call, settings, result);
  if (forwardings.length === 0) return result;
  const backend = backendOf(settings);
  return withRollback(call.warn, (undo) => {
    for (const forwarding of forwardings) {
      backend.put(forwarding, call.warn);
      undo.push(`port mappings (${forwarding.family})`, () => remove(call, backend, [forwarding.family]));
    }
    allowLocalhost(forwardings);
    forgetFlowsTo(forwardings, call.warn);
    return result;
  });
}

/**
 * Found by names that follow from network and container, so neither the mappings nor a prevResult nor a namespace are
 * needed. An explicitly empty list says that there never were any.
 */
function del(call: Call): void {
  const settings = settingsIfValid(call.config);
  if (settings?.mappings?.length === 0) return;
  const target = call.prevResult === undefined ? {} : targetOf(call.prevResult, call.ifname);
  const known = FAMILIES.filter((family) => target[family] !== undefined);
  const families = known.length > 0 ? known : FAMILIES;
  // Both: the node may have been moved from one to the other since, or from the reference to this suite.
  runAll(
    Object.values(BACKENDS).map((backend) => () => remove(call, backend, families)),
    call.warn,
  );
}

function check(call: Call): void {
  const settings = needSettings(call.config);
  const forwardings = forwardingsOf(call, settings, needPrevResult(call));
  if (forwardings.length === 0) return;
  const missing = backendOf(settings).missing(forwardings);
  if (missing !== undefined)
    throw new CniError(CniCode.Internal, `port mappings are not complete: ${missing}`);
}

function gc(call: Call): void {
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

function remove(call: Call, backend: PortmapBackend, families: readonly Family[]): void {
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

/** Conditions decide where nothing else does: they are written in one language or the other. */
function backendOf({ backend, conditions }: PortmapSettings): PortmapBackend {
  const words = [...conditions.ipv4, ...conditions.ipv6];
  const spoken = words.length === 0 ? undefined : isIptablesSyntax(words) ? 'iptables' : 'nftables';
  return BACKENDS[chooseBackend(backend ?? spoken)];
}

const BACKENDS = { iptables: iptablesBackend, nftables: nftablesBackend } as const;
