import { CniCode, CniError } from '../shared/cni/errors.ts';

/** One container's connection to a network, as a runtime asks for it (libcni's RuntimeConf). */
export interface Attachment {
  readonly containerId: string;
  /** Path of the network namespace; '' when it is gone (DEL only). */
  readonly netns: string;
  readonly ifname: string;
  /** CNI_ARGS in the order to send; the order has no meaning. */
  readonly args: readonly (readonly [key: string, value: string])[];
  /** Values for plugins that declare the capability: `portMappings`, ... */
  readonly capabilityArgs: Readonly<Record<string, unknown>>;
}

/** `K=V;K=V`. Throws CniError 4 for what would be read back as something else. */
export function joinArgs(args: Attachment['args']): string {
  for (const [key, value] of args) {
    if (/^[^;=]+$/.test(key) && !value.includes(';')) continue;
    throw new CniError(
      CniCode.InvalidEnvironment,
      `CNI_ARGS cannot carry ${JSON.stringify(`${key}=${value}`)}: a key has no "=", and neither key nor value has ";"`,
    );
  }
  return args.map(([key, value]) => `${key}=${value}`).join(';');
}
