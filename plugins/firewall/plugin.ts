import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { runAll } from '../../shared/cni/undo.ts';
import { chooseDriver } from '../../shared/packetfilter/select.ts';
import { chosenBackend, possibleBackends } from './backends.ts';
import { configure, DEFAULT_ZONE, type FirewallSettings } from './config.ts';
import { hostsByFamily, subjectOf } from './plan.ts';
import { addressesOf } from './addresses.ts';

/** Lets containers' traffic through the host's firewall: docs/reference/plugins/firewall.md. */
export const plugin: Plugin<FirewallSettings> = {
  name: 'firewall',
  supportedVersions: CNI_VERSIONS,
  configure,
  add,
  del,
  check,
  gc,
  status: ({ config }) => chosenBackend(config).ready(),
};

type Call = Invocation<FirewallSettings>;
/** For DEL and GC, which work with whatever is valid of the configuration. */
type Removal = Invocation<Partial<FirewallSettings>>;

function add(call: Call): CniResult {
  const settings = call.config;
  const subject = subjectOf(call, settings);
  chosenBackend(settings).allow(settings, subject, call.warn);
  return call.prevResult ?? { interfaces: [], ips: [], routes: [], dns: {} };
}

function del(call: Removal): void {
  const { network, containerId, warn } = call;
  const addresses = hostsByFamily(addressesOf(call, chooseDriver()));
  const departing = { network, containerId, addresses, zone: zoneOf(call) };
  runAll(
    possibleBackends(call.config).map((backend) => () => backend.forget(departing, warn)),
    warn,
  );
}

/**
 * What ADD made is looked for where an ADD of today would put it; a container that came before the node was moved to
 * another backend has it there, complete, and is as well off.
 */
function check(call: Call): void {
  const settings = call.config;
  const subject = subjectOf(call, settings);
  const chosen = chosenBackend(settings);
  const missing = chosen.missing(settings, subject);
  if (missing === undefined) return;
  const others = possibleBackends(settings).filter((backend) => backend !== chosen);
  if (others.some((backend) => isComplete(() => backend.missing(settings, subject)))) return;
  throw new CniError(CniCode.Internal, `firewall rules are not complete: ${missing}`);
}

function gc(call: Removal): void {
  const { network, validAttachments, warn } = call;
  if (validAttachments === undefined) return;
  const garbage = { network, valid: validAttachments, zone: zoneOf(call) };
  runAll(
    possibleBackends(call.config).map((backend) => () => backend.collect(garbage, warn)),
    warn,
  );
}

function zoneOf({ config }: Removal): string {
  return config.zone ?? DEFAULT_ZONE;
}

/** A backend that this host lacks has nothing. */
function isComplete(missing: () => string | undefined): boolean {
  try {
    return missing() === undefined;
  } catch (thrown) {
    if (thrown instanceof CniError) return false;
    throw thrown;
  }
}
