import { configurationOfAdd } from '../../shared/attachments/cached-results.ts';
import { CniCode, CniError, toCniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { runAll, withRollback } from '../../shared/cni/undo.ts';
import { validNodeConfig, type NodeConfig } from '../../shared/config/node-config.ts';
import { KernelError } from '../../shared/kernel/errno.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { ChangedKey, PortForwarding, PortmapBackend } from './backend.ts';
import { backendName, configure, type PortmapSettings } from './config.ts';
import { iptablesBackend } from './iptables/backend.ts';
import { warnOfListeners } from './listeners.ts';
import { allowLocalhost } from './localhost.ts';
import { nftablesBackend } from './nftables/backend.ts';
import { FAMILIES, planOf, requirePrevResult, validatePlan } from './plan.ts';
import { deleteFlowsFrom, deleteFlowsTo } from './udp-flows.ts';
import { warnOfDrops } from './warnings.ts';

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
  const plan = planOf(call, settings, result);
  validatePlan(plan, settings, call.warn);
  const { forwardings } = plan;
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
    warnOfListeners(forwardings, call.warn);
    warnOfDrops(forwardings, call.warn);
    return result;
  });
}

/**
 * Rules from before the node was moved to another back end, or to the other variant of iptables. If they cannot be read or removed, ADD goes
 * on; only a port of a running container ends it.
 */
function removeConflicts(call: Call, chosen: PortmapBackend, forwarding: PortForwarding): void {
  for (const [name, backend] of Object.entries(BACKENDS)) {
    try {
      const options = { isChosen: backend === chosen, warn: call.warn };
      deleteFlowsFrom(backend.removeConflicts(forwarding, options), call.warn);
    } catch (thrown) {
      const { code, message } = toCniError(thrown);
      if (code === CniCode.TryAgainLater) throw thrown;
      call.warn(`could not look for older port mappings in ${name}: ${message}`);
    }
  }
}

/**
 * Rules are found by names made of network and container id, in both back ends and families: no mappings, prevResult or namespace is
 * needed, and none of the configuration.
 */
function del(call: RemovalCall): void {
  runAll(
    Object.values(BACKENDS).map((backend) => () => remove(call, backend, FAMILIES)),
    call.warn,
  );
}

/** Damage fails; settings that changed since the container was added are a warning. */
function check(call: Call): void {
  const settings = call.config;
  const { forwardings } = planOf(call, settings, requirePrevResult(call));
  if (forwardings.length === 0) return;
  const changed = new Set<ChangedKey>();
  const setUp = { forwardings, snat: snatOfAdd(call) };
  const missing = missingFromAll(backendOf(settings, validNodeConfig(call.warn)), setUp, changed);
  if (missing !== undefined) {
    throw new CniError(CniCode.Internal, `port mappings are incomplete: ${missing}`);
  }
  for (const key of changed) {
    call.warn(
      `port mappings were added with a different "${key}"; they keep working, the next ADD uses the new value`,
    );
  }
}

/** What CHECK compares the rules with. */
interface SetUp {
  readonly forwardings: readonly PortForwarding[];
  /** Of the container's ADD; undefined where the runtime caches no configuration. */
  readonly snat: boolean | undefined;
}

function snatOfAdd(call: Call): boolean | undefined {
  const raw = configurationOfAdd(call, 'portmap');
  const configured = raw === undefined ? undefined : configure(raw);
  return configured !== undefined && 'settings' in configured ? configured.settings.snat : undefined;
}

/** A container that was added before the node was moved to another back end is complete in the old one. */
function missingFromAll(chosen: PortmapBackend, setUp: SetUp, changed: Set<ChangedKey>): string | undefined {
  let missing: string | undefined;
  let failure: unknown;
  try {
    missing = inspect(chosen, setUp, changed);
    if (missing === undefined) return undefined;
  } catch (thrown) {
    failure = thrown;
  }
  for (const backend of Object.values(BACKENDS)) {
    if (backend !== chosen && isComplete(backend, setUp, changed)) {
      changed.add('backend');
      return undefined;
    }
  }
  if (failure !== undefined) throw failure as Error;
  return missing;
}

/** Reports changed keys only of a back end that is complete. */
function inspect(backend: PortmapBackend, setUp: SetUp, changed: Set<ChangedKey>): string | undefined {
  const found = new Set<ChangedKey>();
  const missing = backend.missing(setUp.forwardings, found) ?? missingMarks(backend, setUp, found);
  if (missing === undefined) for (const key of found) changed.add(key);
  return missing;
}

/**
 * Without a rule that marks packets, a container looks as one that was added with `snat: false`. It is damaged if its ADD had `snat: true`:
 * the cached configuration says so, or the rules of the other family.
 */
function missingMarks(
  backend: PortmapBackend,
  { forwardings, snat }: SetUp,
  found: ReadonlySet<ChangedKey>,
): string | undefined {
  const isMarkedNow = forwardings[0]?.settings.snat !== found.has('snat');
  if (isMarkedNow ? forwardings.length < 2 || !found.has('snat') : snat === false) return undefined;
  const unmarked = forwardings.filter((one) => {
    const differences = new Set<ChangedKey>();
    backend.missing([{ ...one, settings: { ...one.settings, snat: true } }], differences);
    return differences.has('snat');
  });
  const [first] = unmarked;
  if (first === undefined || (snat !== true && unmarked.length === forwardings.length)) return undefined;
  return `rules that mark packets for masquerading are missing (${first.family})`;
}

/** A back end that this host lacks, or that cannot apply the settings, has no rules. */
function isComplete(backend: PortmapBackend, setUp: SetUp, changed: Set<ChangedKey>): boolean {
  try {
    return inspect(backend, setUp, changed) === undefined;
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

function backendOf(settings: PortmapSettings, node?: NodeConfig): PortmapBackend {
  return BACKENDS[backendName(settings, node)];
}

export const BACKENDS = { iptables: iptablesBackend, nftables: nftablesBackend } as const;
