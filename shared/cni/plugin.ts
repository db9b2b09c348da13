import type { Configured } from '../config/decode.ts';
import type { CniResult } from './results.ts';
import type { CniVersion } from './versions.ts';

/** One call of a plugin, read and validated by the protocol. Plugins use nothing else of the process. */
export interface Invocation<Config> {
  readonly command: 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS';
  /** CNI_CONTAINERID; '' for GC and STATUS. */
  readonly containerId: string;
  /** CNI_NETNS; '' when the runtime no longer has one (DEL). */
  readonly netns: string;
  /** CNI_IFNAME; '' for GC and STATUS. */
  readonly ifname: string;
  /** CNI_ARGS, split at `;` and at the first `=`, not validated. Plugins that depend on it use `readArgs` of environment.ts. */
  readonly args: ReadonlyMap<string, string>;
  /** CNI_PATH, split at `:`. */
  readonly path: readonly string[];
  /** Network name. */
  readonly network: string;
  readonly cniVersion: CniVersion;
  /** The plugin's settings; for DEL and GC those that are valid. */
  readonly config: Config;
  /** The configuration's text exactly as received, for delegation. */
  readonly stdin: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly prevResult: CniResult | undefined;
  /** GC only, and then always present: the attachments that are still valid. Without the list, `gc` is not called. */
  readonly validAttachments: readonly { containerID: string; ifname: string }[] | undefined;
  /** One line to stderr: the runtime's log. Never stdout. */
  readonly warn: (line: string) => void;
  readonly origin?: CallOrigin | undefined;
}

/** Of a call that came through the launcher (launcher/launcher.c). */
export interface CallOrigin {
  /** Identity of the launcher's file: in CNI_PATH it stands for this executable. */
  readonly launcher: { readonly dev: bigint; readonly ino: bigint };
  /** Whether this process is the node agent: it runs no other plugin's executable and throws {@link NeedsOwnProcess} before it changes anything. */
  readonly inAgent: boolean;
}

/** The node agent cannot serve this call: the launcher then executes the executable. Not an error of the call. */
export class NeedsOwnProcess extends Error {
  override readonly name = 'NeedsOwnProcess';
}

/**
 * A plugin is data plus six functions. Each verb throws CniError; whatever it did before throwing, it has undone.
 * `check`, `status` are read-only. `del` never fails for what is already gone.
 * (Methods, not members of function type: so a plugin of any settings is a `Plugin<unknown>`.)
 */
export interface Plugin<Settings> {
  readonly name: string;
  readonly supportedVersions: readonly CniVersion[];
  /**
   * The plugin's settings out of the parsed configuration object, or every problem at once. Called for every verb before
   * anything else of the plugin; problems stop ADD and STATUS (CniError 7). CHECK then uses the settings of ADD.
   */
  configure(raw: Readonly<Record<string, unknown>>): Configured<Settings>;
  add(call: Invocation<Settings>): CniResult;
  check(call: Invocation<Settings>): void;
  status(call: Invocation<Settings>): void;
  /** Removes what belongs to this container whatever the configuration says: `config` has what is valid of it. */
  del(call: Invocation<Partial<Settings>>): void;
  /** As `del`. */
  gc(call: Invocation<Partial<Settings>>): void;
}
