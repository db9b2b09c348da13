import { CniCode, CniError } from './errors.ts';
import { show } from '../config/json.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** A call's CNI_* variables, checked; '' for those that the verb does not need. */
export interface CallVariables {
  readonly containerId: string;
  readonly netns: string;
  readonly ifname: string;
  readonly path: readonly string[];
}

/** The variables each verb must have, in the order in which missing ones are listed. Unknown verbs need none: they are rejected later. */
const REQUIRED: Readonly<Record<string, readonly string[]>> = {
  ADD: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'],
  DEL: ['CNI_CONTAINERID', 'CNI_IFNAME', 'CNI_PATH'],
  CHECK: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'],
  GC: ['CNI_PATH'],
  STATUS: ['CNI_PATH'],
};

const RULES: Readonly<Record<string, (value: string) => void>> = {
  CNI_CONTAINERID: checkContainerId,
  CNI_IFNAME: checkIfname,
};

/**
 * Throws CniError 4. A variable with a wrong value is reported at once, even before missing ones; only variables that the
 * verb needs are checked; all missing ones are named in one error. Empty counts as missing.
 */
export function readVariables(command: string, environment: Environment): CallVariables {
  const required = Object.hasOwn(REQUIRED, command) ? (REQUIRED[command] ?? []) : [];
  const missing = required.filter((name) => {
    const value = environment[name] ?? '';
    if (value !== '') RULES[name]?.(value);
    return value === '';
  });
  if (missing.length > 0) {
    throw new CniError(CniCode.InvalidEnvironment, `required env variables [${missing.join(',')}] missing`);
  }
  const ofContainer = required.includes('CNI_CONTAINERID');
  return {
    containerId: ofContainer ? (environment['CNI_CONTAINERID'] ?? '') : '',
    netns: ofContainer ? (environment['CNI_NETNS'] ?? '') : '',
    ifname: ofContainer ? (environment['CNI_IFNAME'] ?? '') : '',
    path: (environment['CNI_PATH'] ?? '').split(':').filter((folder) => folder !== ''),
  };
}

/** CNI_NETNS_OVERRIDE: the plugin may work on the network namespace that it runs in. */
export function allowsOwnNamespace(environment: Environment): boolean {
  const override = environment['CNI_NETNS_OVERRIDE'] ?? '';
  return override === '1' || override.toUpperCase() === 'TRUE';
}

/** Container ids and network names become file names and chain comments, so the specification allows few characters. */
const IDENTIFIER = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** IFNAMSIZ of linux/if.h is 16 bytes with the closing zero. */
const IFNAME_BYTES = 15;

/** Throws CniError 4; messages as the CNI library has them, because runtimes' tests compare them. */
export function checkContainerId(id: string): void {
  if (!IDENTIFIER.test(id)) {
    throw new CniError(CniCode.InvalidEnvironment, 'invalid characters in containerID', { details: id });
  }
}

/** Throws CniError 7. */
export function checkNetworkName(name: string): void {
  if (name === '') throw new CniError(CniCode.InvalidNetworkConfig, 'missing network name');
  if (!IDENTIFIER.test(name)) {
    throw new CniError(CniCode.InvalidNetworkConfig, 'invalid characters found in network name', {
      details: name,
    });
  }
}

/**
 * Throws CniError 4. Rejects what the kernel's dev_valid_name rejects, before anything is changed. And control characters: `ip link` prints them
 * to the terminal as they are, and the JSON of `ip -j` would be invalid.
 */
export function checkIfname(name: string): void {
  if (Buffer.byteLength(name) > IFNAME_BYTES) {
    throw new CniError(CniCode.InvalidEnvironment, 'interface name is too long', {
      details: 'interface name should be less than 16 characters',
    });
  }
  if (name === '.' || name === '..') {
    throw new CniError(CniCode.InvalidEnvironment, 'interface name is . or ..', { details: name });
  }
  if (/[/:\s\u0085]/u.test(name)) {
    throw new CniError(
      CniCode.InvalidEnvironment,
      'interface name contains / or : or whitespace characters',
      { details: name },
    );
  }
  if (/\p{Cc}/u.test(name)) {
    throw new CniError(CniCode.InvalidEnvironment, 'interface name contains control characters', {
      details: name,
    });
  }
}

/**
 * Keys that runtimes and operators put into CNI_ARGS for one plugin of a list. The reference's plugins reject them wherever
 * they read CNI_ARGS, so that `MAC=` for bridge breaks host-local; here each plugin ignores those of the others.
 */
const KEYS_OF_OTHERS =
  /^(IP|MAC|GATEWAY|IgnoreUnknown|K8S_.*|NOMAD_.*|CONSUL_IPTABLES_CONFIG|CONSUL_NFTABLES_CONFIG)$/;

/**
 * CNI_ARGS without validation: `K=V;K=V`, split at the first `=` of each pair, so that a value may contain more of them.
 * Entries without a key are left out. The last one of a repeated key counts.
 */
export function splitArgs(text: string): Map<string, string> {
  return new Map(pairs(text).flatMap(({ key, value }) => (key === undefined ? [] : [[key, value]])));
}

/**
 * CNI_ARGS for plugins that depend on it: the same map. Throws CniError 4 for an entry without a key, and for unknown keys
 * unless `IgnoreUnknown=1|true` is among them. Keys are case-sensitive.
 * @param text Invocation.environment['CNI_ARGS']
 * @param known the keys that the plugin reads
 */
export function readArgs(text: string | undefined, known: readonly string[]): Map<string, string> {
  const found = pairs(text ?? '');
  const invalid = found.find(({ key }) => key === undefined);
  if (invalid !== undefined) {
    throw new CniError(CniCode.InvalidEnvironment, `ARGS: invalid pair ${show(invalid.text)}`, {
      details: 'CNI_ARGS is a list of KEY=VALUE, separated by ";"',
    });
  }
  const args = splitArgs(text ?? '');
  if (ignoresUnknown(args)) return args;
  const unknown = found.filter(({ key }) => !known.includes(key ?? '') && !KEYS_OF_OTHERS.test(key ?? ''));
  if (unknown.length > 0) {
    throw new CniError(
      CniCode.InvalidEnvironment,
      `ARGS: unknown args [${unknown.map((pair) => show(pair.text)).join(' ')}]`,
      { details: `known keys: ${known.join(', ')}; IgnoreUnknown=1 in CNI_ARGS allows others` },
    );
  }
  return args;
}

interface Pair {
  readonly text: string;
  readonly key: string | undefined;
  readonly value: string;
}

/** Empty entries are ignored: a trailing `;`, and the empty CNI_ARGS that Nomad sends with DEL. */
function pairs(text: string): Pair[] {
  const texts = text.split(';').filter((pair) => pair !== '');
  return texts.map((pair) => {
    const at = pair.indexOf('=');
    if (at < 1) return { text: pair, key: undefined, value: '' };
    return { text: pair, key: pair.slice(0, at), value: pair.slice(at + 1) };
  });
}

function ignoresUnknown(args: ReadonlyMap<string, string>): boolean {
  const value = args.get('IgnoreUnknown');
  if (value === undefined || /^(0|false)$/i.test(value)) return false;
  if (/^(1|true)$/i.test(value)) return true;
  throw new CniError(
    CniCode.InvalidEnvironment,
    `IgnoreUnknown in CNI_ARGS must be 1, true, 0 or false, got ${show(value)}`,
  );
}
