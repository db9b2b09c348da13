import type { CniResult, CniVersion } from './types.ts';

/** One call of a plugin, after the protocol has read and validated all of it; plugins touch nothing else of the process. */
export interface Invocation<Config> {
  readonly command: 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS';
  /** CNI_CONTAINERID; '' for GC and STATUS. */
  readonly containerId: string;
  /** CNI_NETNS; '' when the runtime no longer has one (DEL). */
  readonly netns: string;
  /** CNI_IFNAME; '' for GC and STATUS. */
  readonly ifname: string;
  /** CNI_ARGS, split at `;` and at the first `=`, unjudged. Plugins that depend on it use `readArgs` of args.ts. */
  readonly args: ReadonlyMap<string, string>;
  /** CNI_PATH, split at `:`. */
  readonly path: readonly string[];
  /** Network name. */
  readonly network: string;
  readonly cniVersion: CniVersion;
  /** The plugin's own part of the configuration: parsed, defaults filled in. */
  readonly config: Config;
  /** The configuration's text exactly as it came, for delegation. */
  readonly stdin: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly prevResult: CniResult | undefined;
  /** GC only, and there always: the attachments that are still valid. Without the list, `gc` is not called. */
  readonly validAttachments: readonly { containerID: string; ifname: string }[] | undefined;
  /** One line to stderr: the runtime's log. Never stdout. */
  readonly warn: (line: string) => void;
}

/**
 * A plugin is data plus five functions. Each throws CniError; whatever it did before throwing, it has undone.
 * `check`, `status` are read-only. `del` never fails for what is already gone.
 */
export interface Plugin<Config> {
  readonly name: string;
  readonly supportedVersions: readonly CniVersion[];
  /**
   * Turns the parsed configuration object into Config, by `decodeConfig` (keys in any case, nulls absent), or throws CniError 7
   * naming every problem. Called for every verb before anything else of the plugin.
   */
  readonly configure: (raw: Readonly<Record<string, unknown>>) => Config;
  readonly add: (call: Invocation<Config>) => CniResult;
  readonly del: (call: Invocation<Config>) => void;
  readonly check: (call: Invocation<Config>) => void;
  readonly gc: (call: Invocation<Config>) => void;
  readonly status: (call: Invocation<Config>) => void;
}
