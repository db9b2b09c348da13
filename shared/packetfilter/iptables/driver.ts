import { CniCode, CniError } from '../../cni/errors.ts';
import { deadlineIn } from '../../kernel/deadline.ts';
import { withNamespaceLock } from '../../kernel/locks.ts';
import type { RunResult } from '../../process/run-program.ts';
import { tableAfterAll } from '../changed-table.ts';
import { operations } from '../diff.ts';
import type { PacketFilterDriver, PlannedChange, TableChange, TableName } from '../ruleset.ts';
import { type Table, stateOf } from '../table.ts';
import { emptyTable, parseSave, restoreInput } from './save-restore.ts';
import { type Tools, findTools, isUnused, needTools, runTool } from './tools.ts';

export interface IptablesDriverOptions {
  readonly where: 'host' | 'container';
  /** Longest wait for the lock of iptables-legacy; default: all that the call has left. */
  readonly timeoutMs?: number;
  /** The programs of this variant, whatever the host's `iptables` leads to. */
  readonly variant?: 'nft' | 'legacy';
  /** Put before every program: `nsenter --user=…`. */
  readonly commandPrefix?: readonly string[];
}

/**
 * Drives tables by iptables' programs: iptables-save reads a table, and one iptables-restore for each family commits what differs. Nothing is
 * committed when nothing differs.
 */
export function createIptablesDriver(options: IptablesDriverOptions): PacketFilterDriver {
  const { variant } = options;
  return {
    get name() {
      return `iptables-${(findTools('ipv4', variant) ?? findTools('ipv6', variant))?.variant ?? 'missing'}`;
    },
    supports: (family) => findTools(family, variant) !== undefined,
    read: (family, table) => stateOf(readTable(needTools(family, variant), table, options)),
    apply: (changes) => {
      if (changes.length === 0) return;
      withNamespaceLock(() => {
        const byFamily = Map.groupBy(changes, ({ family }) => family);
        const tools = [...byFamily.keys()].map((family) => needTools(family, variant));
        for (const one of tools) applyToFamily(one, byFamily.get(one.family) ?? [], options);
      });
    },
  };
}

type Change = TableChange | PlannedChange;

/** Another program that writes at the very moment we do makes a commit fail; three in a row do not happen by chance. */
const MAX_ATTEMPTS = 4;

function applyToFamily(tools: Tools, changes: readonly Change[], options: IptablesDriverOptions): void {
  const deadline = deadlineIn(options.timeoutMs);
  let refusal: { readonly input: string; readonly error: Error } | undefined;
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
    const input = changedTables(tools, changes, options);
    if (input === '') return;
    // The tables are as before and the change is refused again: the change itself is wrong, or waiting does not help.
    if (refusal?.input === input && attempt > 2) throw refusal.error;
    const error = commit(tools, input, options);
    if (error === undefined) return;
    refusal = { input, error };
    if (deadline.passed()) throw error;
  }
  throw refusal?.error ?? new Error('unreachable: no attempt was made');
}

/** @returns input for iptables-restore; empty when no table differs */
function changedTables(tools: Tools, changes: readonly Change[], options: IptablesDriverOptions): string {
  const inputs = [...Map.groupBy(changes, ({ table }) => table)].map(([table, own]) => {
    const before = readTable(tools, table, options);
    const steps = operations(before, tableAfterAll(before, own));
    return steps.length === 0 ? '' : restoreInput(table, steps);
  });
  return inputs.join('');
}

function readTable(tools: Tools, table: TableName, options: IptablesDriverOptions): Table {
  if (isUnused(tools, table)) return emptyTable(tools.family, table);
  const saved = runTool(tools.save, ['-t', table], options);
  const parsed = saved.exitCode === 0 ? parseSave(saved.stdout, tools.family, table) : undefined;
  if (parsed === undefined) throw unreadable(tools, table, saved);
  return parsed;
}

/** `--wait` is for legacy, whose lock every iptables on the host contends for; the nft variant accepts and ignores it. */
function commit(tools: Tools, input: string, options: IptablesDriverOptions): Error | undefined {
  // It must give up before it is killed at the call's deadline: its own error says what it waited for.
  const seconds = Math.max(1, Math.floor(deadlineIn(options.timeoutMs).remainingMs() / 1000) - 1);
  const restored = runTool(tools.restore, ['--noflush', `--wait=${seconds}`], { ...options, input });
  return restored.exitCode === 0 ? undefined : commitRefused(tools, input, restored);
}

/** For a table that iptables-save does not show. */
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
        ? `it holds rules that iptables cannot express; list them with: nft list table ${FAMILIES[tools.family]} ${table}. ${said}`
        : said,
  });
}

/**
 * For input that iptables-restore did not take: it commits table by table, and nothing of the refused one is in the kernel.
 */
export function commitRefused(tools: Tools, input: string, { exitCode, stderr }: RunResult): CniError {
  const said = stderr.trim().replaceAll(/\s*\n\s*/g, '; ');
  const tables = input.match(/(?<=^\*)\w+$/gm) ?? [];
  const code = exitCode === RESOURCE_PROBLEM ? CniCode.TryAgainLater : CniCode.Internal;
  return new CniError(
    code,
    `${tools.restore} refused to change table ${tables.join(' or ')} (${tools.family}), status ${exitCode}`,
    { details: `${said} | the change: ${input.trim().replaceAll('\n', '; ')}`.slice(0, LONGEST_DETAILS) },
  );
}

const FAMILIES = { ipv4: 'ip', ipv6: 'ip6' } as const;
/** include/xtables.h RESOURCE_PROBLEM: the lock is taken, or the kernel's answer to a conflicting change. */
const RESOURCE_PROBLEM = 4;
const LONGEST_DETAILS = 4000;
