import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { delegate, delegateAdd, type DelegateCall } from '../shared/cni/delegate.ts';
import { CniCode, CniError, toCniError } from '../shared/cni/errors.ts';
import { checkContainerId, checkIfname, checkNetworkName } from '../shared/cni/environment.ts';
import type { CniResult } from '../shared/cni/results.ts';
import { runAll } from '../shared/cni/undo.ts';
import { isAtLeast } from '../shared/cni/versions.ts';
import { isNetworkNamespace } from '../shared/kernel/namespace.ts';
import { KnownAttachments, type Lease } from '../shared/attachments/attachments.ts';
import { joinArgs, pluginInput, type Attachment } from './attachment.ts';
import type { ListedPlugin, NetworkList } from './network-list.ts';
import {
  cachedAttachments,
  readCachedResult,
  removeCachedResult,
  writeCachedResult,
} from './result-cache.ts';

/** Nomad's default `cni_path`, and where the README installs the plugins. */
export const USUAL_FOLDER = '/opt/cni/bin';

/**
 * The directory of the plugins unless the user names one: that of this executable, or, when it was installed alone into a directory of
 * PATH, Nomad's. A name that only the plugins have decides: /usr/sbin has a `bridge` of iproute2.
 */
export function pluginFolder(): string {
  const own = dirname(process.execPath);
  return existsSync(join(own, 'host-local')) ? own : USUAL_FOLDER;
}

/** Where a runtime finds plugins and keeps results. */
export interface Runtime {
  /** Folders searched for plugin executables, in order (CNI_PATH). */
  readonly binDirs: readonly string[];
  readonly cacheDir: string;
  /** The environment of every plugin, to which the CNI_* variables are added. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** How DEL runs a plugin; default: its executable. */
  readonly run?: typeof delegate;
  /** Gets the lines that succeeding plugins print on stderr, and the failures of a GC after the first. */
  readonly warn: (line: string) => void;
}

type Command = DelegateCall['command'];

/** Plugins of other vendors have no deadline of their own. */
const PLUGIN_LIMIT_MS = 60_000;

/** Connects a container: every plugin in order, each with the result of the one before; the last result is cached and returned. */
export function addNetwork(runtime: Runtime, list: NetworkList, attachment: Attachment): CniResult {
  checkNames(list, attachment);
  let result: CniResult | undefined;
  for (const plugin of list.plugins) {
    const stdin = pluginInput(list, plugin, {
      prevResult: result,
      capabilityArgs: attachment.capabilityArgs,
    });
    result = named(plugin, 'add', () =>
      delegateAdd(plugin.type, call(runtime, list, 'ADD', stdin, attachment)),
    );
  }
  if (result === undefined)
    throw new CniError(CniCode.InvalidNetworkConfig, `network "${list.name}" has no plugins`);
  writeCachedResult(runtime.cacheDir, list, attachment, result);
  return result;
}

/** Throws the first plugin's error. A list may disable CHECK; versions before 0.4.0 have none (CniError 1). */
export function checkNetwork(runtime: Runtime, list: NetworkList, attachment: Attachment): void {
  checkNames(list, attachment);
  if (!isAtLeast(list.cniVersion, '0.4.0')) {
    throw new CniError(
      CniCode.IncompatibleVersion,
      `network "${list.name}" has cniVersion ${list.cniVersion}, which has no CHECK`,
    );
  }
  if (list.disableCheck) return;
  const prevResult = readCachedResult(runtime.cacheDir, list.name, attachment);
  for (const plugin of list.plugins) {
    const stdin = pluginInput(list, plugin, { prevResult, capabilityArgs: attachment.capabilityArgs });
    named(plugin, 'check', () =>
      delegate(plugin.type, 'CHECK', call(runtime, list, 'CHECK', stdin, attachment)),
    );
  }
}

/** Disconnects in reverse order. Stops at the first plugin that fails and keeps the cached result, so that DEL can be repeated. */
export function deleteNetwork(runtime: Runtime, list: NetworkList, attachment: Attachment): void {
  checkNames(list, attachment);
  const prevResult = isAtLeast(list.cniVersion, '0.4.0')
    ? resultForDelete(runtime, list, attachment)
    : undefined;
  for (const plugin of list.plugins.toReversed()) {
    const stdin = pluginInput(list, plugin, { prevResult, capabilityArgs: attachment.capabilityArgs });
    named(plugin, 'delete', () =>
      (runtime.run ?? delegate)(plugin.type, 'DEL', call(runtime, list, 'DEL', stdin, attachment)),
    );
  }
  removeCachedResult(runtime.cacheDir, list.name, attachment);
}

/**
 * Runs DEL for every known attachment that is not in `valid`: those that a cached result or a lease of host-local names. Then asks each
 * plugin to remove what belongs to no valid one (since 1.1.0; before, plugins have no GC). Continues after failures; throws the
 * first one, the others are warnings.
 */
export function collectGarbage(
  runtime: Runtime,
  list: NetworkList,
  valid: readonly { containerID: string; ifname: string }[],
): void {
  if (list.disableGC) return;
  const isValid = ({ containerId, ifname }: Pick<Attachment, 'containerId' | 'ifname'>): boolean =>
    valid.some((one) => one.containerID === containerId && one.ifname === ifname);
  const stale = knownAttachments(runtime.cacheDir, list).filter((attachment) => !isValid(attachment));
  const withGc = isAtLeast(list.cniVersion, '1.1.0') ? list.plugins : [];
  // Both spellings: early releases of libcni sent the one that the specification does not have.
  const keys = { 'cni.dev/valid-attachments': valid, 'cni.dev/attachments': valid };
  runAll(
    [
      ...stale.map((attachment) => () => deleteNetwork(runtime, list, attachment)),
      ...withGc.map((plugin) => () => {
        const stdin = pluginInput(list, plugin, { keys });
        named(plugin, 'gc', () => delegate(plugin.type, 'GC', call(runtime, list, 'GC', stdin)));
      }),
    ],
    runtime.warn,
  );
}

/**
 * Attachments of the network that this host knows: from cached results, and from leases of host-local whose container has no cached result
 * (Nomad and other runtimes may cache elsewhere or not at all).
 */
function knownAttachments(cacheDir: string, list: NetworkList): Attachment[] {
  const byKey = new Map(leasesOf(list).map((lease) => [keyOf(lease), attachmentOf(lease)]));
  for (const attachment of cachedAttachments(cacheDir, list.name)) byKey.set(keyOf(attachment), attachment);
  return [...byKey.values()];
}

/** The known attachments whose container may be running: their network namespace exists, or their address is in use. */
export function presentAttachments(
  cacheDir: string,
  list: NetworkList,
): { containerID: string; ifname: string }[] {
  const cached = cachedAttachments(cacheDir, list.name).filter(
    ({ netns }) => netns !== '' && isNetworkNamespace(netns),
  );
  const known = new KnownAttachments({ network: list.name });
  const leased = leasesOf(list).filter((lease) => known.mayBeAlive(lease));
  return [...cached, ...leased].map(({ containerId, ifname }) => ({ containerID: containerId, ifname }));
}

type NamedLease = Lease & { readonly ifname: string };

function leasesOf(list: NetworkList): NamedLease[] {
  const configs = list.plugins.map(({ raw }) => raw).filter((raw) => 'ipam' in raw);
  return configs.flatMap((config) =>
    new KnownAttachments({ network: list.name, config, thorough: true })
      .leases()
      // Lease files of old releases do not name the interface; runtimes call it eth0.
      .map((lease) => ({ ...lease, ifname: lease.ifname ?? 'eth0' })),
  );
}

function attachmentOf({ containerId, ifname }: NamedLease): Attachment {
  return { containerId, netns: '', ifname, args: [], capabilityArgs: {} };
}

function keyOf({ containerId, ifname }: Pick<Attachment, 'containerId' | 'ifname'>): string {
  return `${containerId}/${ifname}`;
}

/** Throws the error of the first plugin that is not ready. False when the list is older than 1.1.0, which has no STATUS. */
export function networkStatus(runtime: Runtime, list: NetworkList): boolean {
  if (!isAtLeast(list.cniVersion, '1.1.0')) return false;
  for (const plugin of list.plugins) {
    const stdin = pluginInput(list, plugin, {});
    named(plugin, 'status', () => delegate(plugin.type, 'STATUS', call(runtime, list, 'STATUS', stdin)));
  }
  return true;
}

/** A damaged cached result does not stop a DEL: without it, plugins find what they made by name. */
function resultForDelete(runtime: Runtime, list: NetworkList, attachment: Attachment): CniResult | undefined {
  try {
    return readCachedResult(runtime.cacheDir, list.name, attachment);
  } catch (thrown) {
    runtime.warn(`${toCniError(thrown).message}; deleting without it`);
    removeCachedResult(runtime.cacheDir, list.name, attachment);
    return undefined;
  }
}

function call(
  runtime: Runtime,
  list: NetworkList,
  command: Command,
  stdin: string,
  attachment?: Attachment,
): DelegateCall {
  const environment = {
    ...runtime.environment,
    CNI_COMMAND: command,
    CNI_CONTAINERID: attachment?.containerId ?? '',
    CNI_NETNS: attachment?.netns ?? '',
    CNI_IFNAME: attachment?.ifname ?? '',
    CNI_ARGS: joinArgs(attachment?.args ?? []),
    CNI_PATH: runtime.binDirs.join(':'),
  };
  return {
    command,
    path: runtime.binDirs,
    stdin,
    environment,
    cniVersion: list.cniVersion,
    warn: runtime.warn,
    timeoutMs: PLUGIN_LIMIT_MS,
  };
}

function checkNames(list: NetworkList, attachment: Attachment): void {
  if (attachment.containerId === '') throw new CniError(CniCode.UnknownContainer, 'missing containerID');
  if (attachment.ifname === '') throw new CniError(CniCode.InvalidEnvironment, 'the interface name is empty');
  checkContainerId(attachment.containerId);
  checkNetworkName(list.name);
  checkIfname(attachment.ifname);
}

/** `plugin type="bridge" failed (add): ...`, as libcni names the plugin whose error it is. */
function named<T>(plugin: ListedPlugin, verb: string, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    const { code, message, details } = toCniError(thrown);
    const name = typeof plugin.raw['name'] === 'string' ? ` name=${JSON.stringify(plugin.raw['name'])}` : '';
    throw new CniError(
      code,
      `plugin type=${JSON.stringify(plugin.type)}${name} failed (${verb}): ${message}`,
      {
        ...(details === undefined ? {} : { details }),
        cause: thrown,
      },
    );
  }
}
