import { markCall } from './call-marks.ts';
import { allowsOwnNamespace, readVariables, type Environment, splitArgs } from './environment.ts';
import { withCallScope } from '../kernel/call-scope.ts';
import { withCallDeadline, withRollbackTime } from '../kernel/deadline.ts';
import { removeUnusedLocks } from '../kernel/locks.ts';
import { requireSettings, usableSettings } from '../config/decode.ts';
import { joinProblems } from '../config/sentences.ts';
import { CniCode, CniError, lacksCapability, toCniError, type CniErrorJson } from './errors.ts';
import { readNetwork, readPrevResult, readValidAttachments, readVersion, type Network } from './network.ts';
import { startTrace } from '../process/trace.ts';
import { NeedsOwnProcess, type CallOrigin, type Invocation, type Plugin } from './plugin.ts';
import { printResult, type CniResult } from './results.ts';
import { NEWEST_VERSION, SUITE_VERSION, type CniVersion } from './versions.ts';

/** Everything that the protocol uses of the process it runs in. */
export interface ProcessEdge {
  readonly environment: Environment;
  /** The whole of stdin. Throws CniError 5 when it does not end in time, 7 when it is larger. */
  readonly readStdin: (limitMib: number) => string;
  /** Whether the path is the network namespace that this process runs in; false when it cannot be opened. */
  readonly isOwnNamespace: (path: string) => boolean;
  /** The plugin's configuration at the attachment's ADD, from the runtime's cached result; undefined when there is none. */
  readonly configurationOfAdd: (
    attachment: Pick<Invocation<unknown>, 'network' | 'containerId' | 'ifname'>,
    type: unknown,
  ) => Readonly<Record<string, unknown>> | undefined;
  readonly writeOut: (text: string) => void;
  readonly writeErr: (text: string) => void;
  /** The call's time has started again (deadline.ts, restartInQueue). */
  readonly onQueued?: (() => void) | undefined;
  /** The network's name is known and valid. */
  readonly onNetwork?: ((name: string) => void) | undefined;
  readonly origin?: CallOrigin | undefined;
}

/** Hundreds of times the largest list in use. A GC also has the attachments of the whole node, about 80 bytes each. */
const INPUT_LIMIT_MIB = 4;
const GC_INPUT_LIMIT_MIB = 16;

const COMMANDS = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS'] as const;
type Command = (typeof COMMANDS)[number];

/**
 * One call of `plugin`, from environment and stdin to stdout: a result, an error document, or nothing. Returns the exit code.
 * The order of the checks is the reference's (docs/reference/protocol.md), except that a call on the plugin's own namespace is
 * rejected before the work and not after it. The plugin is called only when the whole call has been validated.
 * @throws NeedsOwnProcess only in the node agent, before anything was changed
 */
export function runPlugin<Config>(plugin: Plugin<Config>, edge: ProcessEdge): number {
  startTrace(edge.environment, logger(edge));
  return withCallScope(() => withCallDeadline(() => runCall(plugin, edge), undefined, edge.onQueued));
}

function runCall<Config>(plugin: Plugin<Config>, edge: ProcessEdge): number {
  const command = edge.environment['CNI_COMMAND'] ?? '';
  if (command === '') {
    edge.writeErr(versionLines(plugin));
    return 0;
  }
  const { text, exitCode, rollback } = outcome(plugin, command, edge);
  try {
    if (exitCode !== 0) withRollbackTime(() => edge.writeOut(text));
    else if (text !== '') edge.writeOut(text);
    return exitCode;
  } catch (thrown) {
    rollback?.();
    const line = `${plugin.name}: cannot report the result: ${toCniError(thrown).message}\n`;
    withRollbackTime(() => logger(edge)(line));
    return 1;
  }
}

/** What one verb prints on stdout; '' for the verbs without a result. */
interface Answer {
  readonly text: string;
  /** ADD only: undoes it. A runtime that does not get the result takes the ADD for failed, and a failed one leaves nothing behind. */
  readonly rollback?: () => void;
}

function outcome<Config>(
  plugin: Plugin<Config>,
  command: string,
  edge: ProcessEdge,
): Answer & { exitCode: number } {
  const known: { version?: CniVersion } = {};
  try {
    if (command === 'VERSION') return { text: versionDocument(plugin), exitCode: 0 };
    return { ...answer(plugin, command, edge, known), exitCode: 0 };
  } catch (thrown) {
    if (thrown instanceof NeedsOwnProcess) throw thrown;
    return { text: errorDocument(plugin, command, thrown, known.version), exitCode: 1 };
  }
}

/**
 * What a call without CNI_COMMAND prints, whatever the arguments: Nomad's fingerprint runs every plugin so, joins stdout and
 * stderr and takes the first word that looks like a version, so no number may stand before it.
 */
function versionLines({
  name,
  supportedVersions,
}: Pick<Plugin<unknown>, 'name' | 'supportedVersions'>): string {
  return `CNI ${name} plugin v${SUITE_VERSION}\nCNI protocol versions supported: ${supportedVersions.join(', ')}\n`;
}

function versionDocument({ supportedVersions }: Pick<Plugin<unknown>, 'supportedVersions'>): string {
  return `${JSON.stringify({ cniVersion: NEWEST_VERSION, supportedVersions })}\n`;
}

function answer<Config>(
  plugin: Plugin<Config>,
  command: string,
  edge: ProcessEdge,
  known: { version?: CniVersion },
): Answer {
  const variables = readVariables(command, edge.environment);
  const stdin = edge.readStdin(command === 'GC' ? GC_INPUT_LIMIT_MIB : INPUT_LIMIT_MIB);
  const network = readNetwork(stdin);
  edge.onNetwork?.(network.name);
  if (!isCommand(command)) {
    throw new CniError(CniCode.InvalidEnvironment, `unknown CNI_COMMAND: ${command}`);
  }
  const cniVersion = readVersion(command, network, plugin);
  known.version = cniVersion;
  const logLine = logger(edge);
  const warn = (line: string): void => logLine(`${plugin.name}: ${line.replaceAll(/\s*\n\s*/g, ' ')}\n`);
  const base = {
    ...variables,
    command,
    network: network.name,
    cniVersion,
    stdin,
    environment: edge.environment,
    args: splitArgs(edge.environment['CNI_ARGS'] ?? ''),
    prevResult: previous(command, network, cniVersion, warn),
    validAttachments: command === 'GC' ? readValidAttachments(network) : undefined,
    warn,
    origin: edge.origin,
  };
  const configured = plugin.configure(network.raw);
  if (command === 'DEL' || command === 'GC') {
    const call = { ...base, command, config: usableSettings(configured) };
    rejectOwnNamespace(call, edge);
    return remove(plugin, call);
  }
  if (command === 'CHECK' && 'problems' in configured) {
    const config = settingsOfAdd(plugin, base, network.raw['type'], edge, configured.problems);
    if (config !== undefined) plugin.check({ ...base, command, config });
    return { text: '' };
  }
  const call = { ...base, command, config: requireSettings(plugin.name, configured) };
  rejectOwnNamespace(call, edge);
  return perform(plugin, call);
}

/**
 * For CHECK with a configuration that ADD would reject: the list was edited, and Nomad destroys the network of an allocation whose CHECK
 * fails. CHECK uses the configuration of ADD; where the runtime did not cache it, only a warning is possible.
 */
function settingsOfAdd<Config>(
  plugin: Plugin<Config>,
  base: Pick<Invocation<unknown>, 'network' | 'containerId' | 'ifname' | 'warn'>,
  type: unknown,
  edge: ProcessEdge,
  problems: readonly string[],
): Config | undefined {
  const added = edge.configurationOfAdd(base, type);
  const configured = added === undefined ? undefined : plugin.configure(added);
  const settings = configured !== undefined && 'settings' in configured ? configured.settings : undefined;
  const consequence =
    settings === undefined
      ? 'not checked, because no valid configuration of ADD is cached'
      : 'checked with the configuration of ADD';
  base.warn(`invalid configuration: ${joinProblems(problems)}; ${consequence}`);
  return settings;
}

/** Writes lines to stderr. A log that is full or not read does not end the call; after the first failure, it is not tried again. */
function logger(edge: ProcessEdge): (line: string) => void {
  let works = true;
  return (line) => {
    if (!works) return;
    try {
      edge.writeErr(line);
    } catch {
      works = false;
    }
  };
}

function isCommand(command: string): command is Command {
  return (COMMANDS as readonly string[]).includes(command);
}

/** DEL works without prevResult: an unreadable one is a warning. GC and STATUS have none. */
function previous(
  command: Command,
  network: Network,
  version: CniVersion,
  warn: (line: string) => void,
): CniResult | undefined {
  if (command === 'ADD' || command === 'CHECK') return readPrevResult(network, version);
  if (command !== 'DEL') return undefined;
  try {
    return readPrevResult(network, version);
  } catch (thrown) {
    if (!(thrown instanceof CniError)) throw thrown;
    warn(`continuing without prevResult: ${thrown.message}`);
    return undefined;
  }
}

/** On the host's own namespace, a plugin would change the host's interfaces instead of the container's. */
function rejectOwnNamespace({ command, netns }: Invocation<unknown>, edge: ProcessEdge): void {
  if ((command !== 'ADD' && command !== 'DEL') || netns === '') return;
  if (allowsOwnNamespace(edge.environment) || !isOwnNamespace(netns, edge)) return;
  throw new CniError(
    CniCode.InvalidNetworkNamespace,
    "plugin's netns and netns from CNI_NETNS should not be the same",
    { details: `CNI_NETNS is ${JSON.stringify(netns)}; CNI_NETNS_OVERRIDE=1 allows it` },
  );
}

/** If the path cannot be opened, let the plugin report it: its error names the path and the cause. */
function isOwnNamespace(netns: string, edge: ProcessEdge): boolean {
  try {
    return edge.isOwnNamespace(netns);
  } catch {
    return false;
  }
}

function perform<Config>(plugin: Plugin<Config>, call: Invocation<Config>): Answer {
  if (call.command === 'ADD') return add(plugin, call);
  if (call.command === 'CHECK') plugin.check(call);
  else plugin.status(call);
  return { text: '' };
}

function remove<Config>(plugin: Plugin<Config>, call: Invocation<Partial<Config>>): Answer {
  if (call.command === 'DEL') {
    markCall('DEL', call);
    plugin.del(call);
  } else collect(plugin, call);
  return { text: '' };
}

/** Undoes an ADD whose result the configuration's version cannot express (no address in 0.2.0). */
function add<Config>(plugin: Plugin<Config>, call: Invocation<Config>): Answer {
  markCall('ADD', call);
  const result = plugin.add(call);
  const rollback = (): void => {
    try {
      withRollbackTime(() => plugin.del({ ...call, command: 'DEL', prevResult: result }));
    } catch (later) {
      call.warn(`while undoing ADD: ${toCniError(later).message}`);
    }
  };
  try {
    return { text: printResult(call.cniVersion, result), rollback };
  } catch (thrown) {
    rollback();
    throw thrown;
  }
}

/** Without a list nothing is known to be stale; with an empty list, everything is. Lock files that killed calls left belong to no attachment. */
function collect<Config>(plugin: Plugin<Config>, call: Invocation<Partial<Config>>): void {
  if (call.validAttachments === undefined) {
    call.warn('GC without "cni.dev/valid-attachments" in the configuration: nothing is removed');
    return;
  }
  plugin.gc(call);
  try {
    removeUnusedLocks();
  } catch (thrown) {
    call.warn(`could not remove the lock files of killed calls: ${toCniError(thrown).message}`);
  }
}

/** A screenful: Nomad and containerd log the whole message. */
const SHOWN_CHARACTERS = 4000;

/**
 * go-cni takes any DEL error that contains "not found" for success and does not call the other plugins of the list: on DEL
 * these words are replaced, also in a delegate's message.
 */
function errorDocument(
  { name }: Pick<Plugin<unknown>, 'name'>,
  command: string,
  thrown: unknown,
  version: CniVersion | undefined,
): string {
  const error = thrown instanceof CniError ? thrown : unexpected(name, thrown);
  const { message, details } = error;
  const code = error.code === CniCode.Internal && lacksCapability(error) ? CniCode.IoFailure : error.code;
  const guarded = (text: string): string => {
    const shown = text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}...` : text;
    return command === 'DEL' ? shown.replaceAll(/not found/gi, 'missing') : shown;
  };
  const document: CniErrorJson = {
    ...(version === undefined ? {} : { cniVersion: version }),
    code,
    msg: guarded(message),
    ...(details === undefined || details === '' ? {} : { details: guarded(details) }),
  };
  return JSON.stringify(document, null, 4);
}

/** A TypeError and its like is a bug of ours: the message says so, with the position. Other errors keep their text. */
function unexpected(plugin: string, thrown: unknown): CniError {
  const fault = [TypeError, RangeError, ReferenceError, SyntaxError].some((kind) => thrown instanceof kind);
  if (!fault || !(thrown instanceof Error)) return toCniError(thrown);
  const position = thrown.stack?.split('\n').slice(1, 4).join(' ').replaceAll(/\s+/g, ' ').trim() ?? '';
  return new CniError(CniCode.Internal, `bug in the ${plugin} plugin: ${thrown.message}`, {
    cause: thrown,
    details: position,
  });
}
