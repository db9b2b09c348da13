import { CniCode, CniError } from '../../cni/errors.ts';
import { type Deadline, deadlineIn } from '../../kernel/deadline.ts';
import { KernelError } from '../../kernel/errno.ts';
import { tableAfterAll } from '../changed-table.ts';
import { type Operation, operations } from '../diff.ts';
import { commitLegacy } from '../iptables-legacy/commit.ts';
import { readLegacyTable } from '../iptables-legacy/read-table.ts';
import { emptyTable, parseSave, restoreInput } from './save-restore.ts';
import { type Tools, findTools, isUnused, legacyToolsOnDemand, needTools, runTool } from './tools.ts';
import { withNamespaceLock } from '../../kernel/locks.ts';
import type { Family, PacketFilterDriver, PlannedChange, TableChange, TableName } from '../ruleset.ts';
import { type Table, stateOf } from '../table.ts';
import type { RunResult } from '../../process/run.ts';

export interface IptablesDriverOptions {
  readonly where: 'host' | 'container';
  /** Longest wait for the lock of iptables-legacy; default: all that the call has left. */
  readonly timeoutMs?: number;
  /** The programs of this variant, whatever the host's `iptables` leads to. */
  readonly variant?: 'nft' | 'legacy';
  /** Put before every program: `nsenter --user=…`. */
  readonly commandPrefix?: readonly string[];
  /** As in select.ts. */
  readonly onlyPrograms?: boolean;
  /** Rules may have raw arguments: tables are read by iptables-save, which prints them. */
  readonly rawArgs?: boolean;
}

/**
 * Drives the tables of the host's iptables. Legacy tables are read and written in process where possible (iptables-legacy/commit.ts), else, as
 * those of the other variant, by the programs: at most one iptables-save, and one iptables-restore if something differs.
 */
export function createIptablesDriver(options: IptablesDriverOptions): PacketFilterDriver {
  const { variant } = options;
  return {
    get name() {
      return `iptables-${(findTools('ipv4', variant) ?? findTools('ipv6', variant))?.variant ?? 'missing'}`;
    },
    supports: (family) => findTools(family, variant) !== undefined,
    read: (family, table) => {
      const tools = toolsOf(family, options);
      return stateOf(readInProcess(tools, table, options) ?? readTable(tools, table, options));
    },
    apply: (changes) => {
      if (changes.length > 0) withNamespaceLock(() => applyAll(changes, options));
    },
  };
}

/** Legacy tables that are chosen by `variant` need no program until one has to run. */
function toolsOf(family: Family, options: IptablesDriverOptions): Tools {
  const { variant, onlyPrograms } = options;
  if (variant !== 'legacy' || onlyPrograms === true) return needTools(family, variant);
  return findTools(family, variant) ?? legacyToolsOnDemand(family);
}

type Change = TableChange | PlannedChange;

/** A commit fails if another program writes between reading and committing. */
const MOST_ATTEMPTS = 4;

function applyAll(changes: readonly Change[], options: IptablesDriverOptions): void {
  const tools = new Map(changes.map(({ family }) => [family, toolsOf(family, options)]));
  const deadline = deadlineIn(options.timeoutMs);
  for (const [family, table] of tablesOf(changes)) {
    const own = changes.filter((change) => change.family === family && change.table === table);
    const familyTools = tools.get(family);
    if (familyTools !== undefined) applyToTable(familyTools, table, own, { ...options, deadline });
  }
}

interface TableOptions extends IptablesDriverOptions {
  readonly deadline: Deadline;
}

function applyToTable(
  tools: Tools,
  table: TableName,
  changes: readonly Change[],
  options: TableOptions,
): void {
  if (!isInProcess(tools, options)) {
    applyByPrograms(tools, table, changes, options);
    return;
  }
  const outcome = commitLegacy(tools.family, table, (before) => tableAfterAll(before, changes), options);
  if (outcome.is === 'left') applyByPrograms(tools, table, changes, options, outcome.cause);
}

/** @param cause the error of the attempt in process, if there was one */
function applyByPrograms(
  tools: Tools,
  table: TableName,
  changes: readonly Change[],
  options: TableOptions,
  cause?: Error,
): void {
  let refusal: { readonly input: string; readonly error: Error } | undefined;
  for (let attempt = 1; attempt <= MOST_ATTEMPTS; attempt++) {
    const steps = stepsFor(tools, table, changes, options);
    if (steps.length === 0) return;
    const input = restoreInput(table, steps);
    // The table did not change between two refusals, so a further attempt would fail, too.
    if (refusal?.input === input && attempt > 2) throw refusal.error;
    const error = commit(tools, table, input, options, cause);
    if (error === undefined) return;
    refusal = { input, error };
    if (options.deadline.passed()) throw error;
  }
  throw refusal?.error ?? new Error('unreachable: no attempt was made');
}

/** iptables-restore needs the text of rules: a legacy table with rules that only iptables can print is read by iptables-save. */
function stepsFor(
  tools: Tools,
  table: TableName,
  changes: readonly Change[],
  options: IptablesDriverOptions,
): Operation[] {
  const read = readInProcess(tools, table, options);
  const steps = read && difference(read, changes);
  if (steps?.every((step) => !('entry' in step) || !('unmanaged' in step.entry.rule)) === true) return steps;
  return difference(readTable(tools, table, options), changes);
}

/** Not the nft variant, not namespaces that only the programs enter, and not where raw arguments are compared. */
function isInProcess({ family, variant }: Tools, options: IptablesDriverOptions): boolean {
  if (variant !== 'legacy' || options.onlyPrograms === true) return false;
  return options.rawArgs !== true || findTools(family, options.variant) === undefined;
}

/** @returns undefined if only the programs can read the table */
function readInProcess(tools: Tools, table: TableName, options: IptablesDriverOptions): Table | undefined {
  if (!isInProcess(tools, options)) return undefined;
  try {
    return readLegacyTable(tools.family, table) ?? emptyTable(tools.family, table);
  } catch (thrown) {
    if (thrown instanceof KernelError) return undefined;
    throw thrown;
  }
}

function difference(before: Table, changes: readonly Change[]): Operation[] {
  return operations(before, tableAfterAll(before, changes));
}

function readTable(tools: Tools, table: TableName, options: IptablesDriverOptions): Table {
  if (isUnused(tools, table)) return emptyTable(tools.family, table);
  const saved = runTool(tools.save, ['-t', table], options);
  const parsed = saved.exitCode === 0 ? parseSave(saved.stdout, tools.family, table) : undefined;
  if (parsed === undefined) throw unreadable(tools, table, saved);
  return parsed;
}

/** `--wait` is for legacy, whose lock every iptables on the host contends for; the nft variant accepts and ignores it. */
function commit(
  tools: Tools,
  table: TableName,
  input: string,
  options: TableOptions,
  cause: Error | undefined,
): Error | undefined {
  // It must give up before it is killed at the call's deadline: its own error says what it waited for.
  const seconds = Math.max(1, Math.floor(options.deadline.remainingMs() / 1000) - 1);
  const restored = runTool(tools.restore, ['--noflush', `--wait=${seconds}`], { ...options, input });
  return restored.exitCode === 0 ? undefined : commitRefused(tools, table, input, restored, cause);
}

function tablesOf(changes: readonly Change[]): [Family, TableName][] {
  const keys = new Set(changes.map(({ family, table }) => `${family} ${table}`));
  return [...keys].map((key) => key.split(' ') as [Family, TableName]);
}

/** The error for a table that iptables-save does not print. */
export function unreadable(
  tools: Tools,
  table: TableName,
  { exitCode, stdout, stderr }: RunResult,
): CniError {
  const message = `cannot read table ${table} (${tools.family}): ${tools.save} ended with status ${exitCode}`;
  const said = [...stdout.split('\n').filter((line) => line.startsWith('#')), stderr].join(' ').trim();
  return new CniError(CniCode.Internal, exitCode === 0 ? `${message} without showing it` : message, {
    details:
      exitCode === 0
        ? `the table has rules that iptables cannot express, see: nft list table ${FAMILIES[tools.family]} ${table}. ${said}`
        : said,
  });
}

/**
 * The error for a transaction that iptables-restore refused; nothing was changed.
 * @param cause the error of the attempt in process, if there was one
 */
export function commitRefused(
  tools: Tools,
  table: TableName,
  input: string,
  { exitCode, stderr }: RunResult,
  cause?: Error,
): CniError {
  const said = stderr.trim().replaceAll(/\s*\n\s*/g, '; ');
  const code = exitCode === RESOURCE_PROBLEM ? CniCode.TryAgainLater : CniCode.Internal;
  return new CniError(
    code,
    `${tools.restore} refused to change table ${table} (${tools.family}), status ${exitCode}; nothing was changed`,
    {
      details: `${said} | the change: ${input.trim().replaceAll('\n', '; ')}`.slice(0, LONGEST_DETAILS),
      cause,
    },
  );
}

const FAMILIES = { ipv4: 'ip', ipv6: 'ip6' } as const;
/** include/xtables.h RESOURCE_PROBLEM: the lock is held, or another program changed the table. */
const RESOURCE_PROBLEM = 4;
const LONGEST_DETAILS = 4000;
