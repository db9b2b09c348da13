import { CniCode, CniError } from './errors.ts';
import { checkContainerId, checkIfname } from './names.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** What a call's CNI_* variables say, checked; '' for what the verb does not need. */
export interface CallVariables {
  readonly containerId: string;
  readonly netns: string;
  readonly ifname: string;
  readonly path: readonly string[];
}

/** The variables each verb must have, in the order in which missing ones are listed. Other verbs need none: they are refused later. */
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
 * verb needs are looked at; all missing ones are named in one error. Empty counts as missing.
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

/** Some hosts want plugins to work on their own namespace: CNI_NETNS_OVERRIDE allows it. */
export function allowsOwnNamespace(environment: Environment): boolean {
  const override = environment['CNI_NETNS_OVERRIDE'] ?? '';
  return override === '1' || override.toUpperCase() === 'TRUE';
}
