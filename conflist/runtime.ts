import { delegate, delegateAdd, type DelegateCall } from '../shared/cni/delegate.ts';
import { CniCode, CniError, toCniError } from '../shared/cni/errors.ts';
import { checkContainerId, checkIfname, checkNetworkName } from '../shared/cni/environment.ts';
import type { CniResult } from '../shared/cni/results.ts';
import { runAll } from '../shared/cni/undo.ts';
import { isAtLeast } from '../shared/cni/versions.ts';
import { joinArgs, type Attachment } from './attachment.ts';
import type { ListedPlugin, NetworkList } from './network-list.ts';
import { pluginInput } from './plugin-input.ts';
import {
  cachedAttachments,
  readCachedResult,
  removeCachedResult,
  writeCachedResult,
} from './result-cache.ts';

/** Where a runtime finds plugins and keeps results. */
export interface Runtime {
  /** Folders searched for plugin executables, in order (CNI_PATH). */
  readonly binDirs: readonly string[];
  readonly cacheDir: string;
  /** Handed to every plugin beneath the CNI_* variables, as a runtime hands on its own. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** What plugins print on stderr although they succeed, and what a GC could not finish. */
  readonly warn: (line: string) => void;
}

type Command = DelegateCall['command'];

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

/** Throws what the first plugin finds wrong. A list may forbid CHECK; versions before 0.4.0 have none (CniError 1). */
export function checkNetwork(runtime: Runtime, list: NetworkList, attachment: Attachment): void {
  checkNames(list, attachment);
  if (!isAtLeast(list.cniVersion, '0.4.0')) {
    throw new CniError(
      CniCode.IncompatibleVersion,
      `network "${list.name}" is of cniVersion ${list.cniVersion}, which has no CHECK`,
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

/** Disconnects in reverse order. Stops at the first plugin that fails and then keeps the cached result, so that it can be asked again. */
export function deleteNetwork(runtime: Runtime, list: NetworkList, attachment: Attachment): void {
  checkNames(list, attachment);
  const prevResult = isAtLeast(list.cniVersion, '0.4.0')
    ? resultForDelete(runtime, list, attachment)
    : undefined;
  for (const plugin of list.plugins.toReversed()) {
    const stdin = pluginInput(list, plugin, { prevResult, capabilityArgs: attachment.capabilityArgs });
    named(plugin, 'delete', () =>
      delegate(plugin.type, 'DEL', call(runtime, list, 'DEL', stdin, attachment)),
    );
  }
  removeCachedResult(runtime.cacheDir, list.name, attachment);
}

/**
 * Deletes every cached attachment that is not in `valid`, then asks each plugin to drop what belongs to no valid one (since
 * 1.1.0; before, plugins have no GC). Goes on after failures; throws the first one, the others go to `warn`.
 */
export function collectGarbage(
  runtime: Runtime,
  list: NetworkList,
  valid: readonly { containerID: string; ifname: string }[],
): void {
  if (list.disableGC) return;
  const isValid = ({ containerId, ifname }: Attachment): boolean =>
    valid.some((one) => one.containerID === containerId && one.ifname === ifname);
  const stale = cachedAttachments(runtime.cacheDir, list.name).filter((attachment) => !isValid(attachment));
  const asked = isAtLeast(list.cniVersion, '1.1.0') ? list.plugins : [];
  // Both spellings: early releases of libcni sent the one that the specification does not have.
  const keys = { 'cni.dev/valid-attachments': valid, 'cni.dev/attachments': valid };
  runAll(
    [
      ...stale.map((attachment) => () => deleteNetwork(runtime, list, attachment)),
      ...asked.map((plugin) => () => {
        const stdin = pluginInput(list, plugin, { keys });
        named(plugin, 'gc', () => delegate(plugin.type, 'GC', call(runtime, list, 'GC', stdin)));
      }),
    ],
    runtime.warn,
  );
}

/** Throws what the first plugin that is not ready says. False when the list is older than 1.1.0 and nobody can be asked. */
export function networkStatus(runtime: Runtime, list: NetworkList): boolean {
  if (!isAtLeast(list.cniVersion, '1.1.0')) return false;
  for (const plugin of list.plugins) {
    const stdin = pluginInput(list, plugin, {});
    named(plugin, 'status', () => delegate(plugin.type, 'STATUS', call(runtime, list, 'STATUS', stdin)));
  }
  return true;
}

/** A damaged cache entry must not keep a container's network from being removed: without it plugins find their things by name. */
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
  };
}

function checkNames(list: NetworkList, attachment: Attachment): void {
  if (attachment.containerId === '') throw new CniError(CniCode.UnknownContainer, 'missing containerID');
  if (attachment.ifname === '') throw new CniError(CniCode.InvalidEnvironment, 'the interface name is empty');
  checkContainerId(attachment.containerId);
  checkNetworkName(list.name);
  checkIfname(attachment.ifname);
}

/** `plugin type="bridge" failed (add): ...`: the words by which operators of libcni know whose error it is. */
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
