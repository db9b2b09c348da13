import { realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { CniCode, CniError } from '../../cni/errors.ts';
import { CallCache } from '../../kernel/call-scope.ts';
import { findProgram, runProgram, type RunResult } from '../../process/run-program.ts';
import type { Family, TableName } from '../ruleset.ts';
import { legacyTablesInUse } from '../tables-in-use.ts';

/** The iptables programs of one family on this host. */
export interface Tools {
  readonly family: Family;
  readonly variant: 'nft' | 'legacy';
  readonly save: string;
  readonly restore: string;
}

/**
 * Searched once in a call, and again when PATH is another one: every part of a plugin asks for them.
 * @param variant the programs of one variant whatever `iptables` itself leads to; that one when left out
 * @returns undefined when the host lacks them (an IPv4-only host may lack ip6tables)
 */
export function findTools(family: Family, variant?: Tools['variant']): Tools | undefined {
  const prefix = variant === undefined ? PREFIX[family] : `${PREFIX[family]}-${variant}`;
  const key = `${prefix} ${process.env['PATH'] ?? ''}`;
  return found.get(key, () => searchTools(family, prefix));
}

const found = new CallCache<Tools | undefined>();

function searchTools(family: Family, prefix: string): Tools | undefined {
  const restore = findProgram(`${prefix}-restore`);
  if (restore === undefined) return undefined;
  // Every package that has one of the two has both, in the same directory.
  return { family, variant: variantOf(restore), save: restore.replace(/restore$/, 'save'), restore };
}

/** @throws CniError when the host lacks them, saying what to install */
export function needTools(family: Family, variant?: Tools['variant']): Tools {
  const tools = findTools(family, variant);
  if (tools !== undefined) return tools;
  throw new CniError(
    CniCode.Internal,
    `this host has no ${PREFIX[family]}${variant === undefined ? '' : `-${variant}`}-restore, needed for ${NAMES[family]} rules`,
    {
      details: `install iptables, or put it into PATH (${process.env['PATH'] ?? 'not set'})`,
    },
  );
}

/**
 * Legacy tables come into being when they are first looked at (the kernel loads a module and hooks it into every packet's
 * way), so a table that was never used is not looked at. /proc names those of the namespace that the caller is in.
 */
export function isUnused({ family, variant }: Tools, table: TableName): boolean {
  // A table that may be in use is read as well: in a user namespace that makes it at worst.
  return variant === 'legacy' && legacyTablesInUse(family)?.includes(table) === false;
}

/** Whether rules of a variant can be read and written here: nf_tables needs no program, iptables-legacy does. */
export function canDrive(family: Family, variant: Tools['variant']): boolean {
  return variant === 'nft' || findTools(family, variant) !== undefined;
}

export interface ToolRun {
  readonly where: 'host' | 'container';
  readonly input?: string;
  readonly commandPrefix?: readonly string[];
}

/** Runs one of the programs; its answer is for the caller to judge. */
export function runTool(file: string, args: readonly string[], run: ToolRun): RunResult {
  const [first = file, ...rest] = [...(run.commandPrefix ?? []), file, ...args];
  return runProgram(first, rest, {
    env: { ...process.env, LC_ALL: 'C', ...lockFile(run.where) },
    ...(run.input === undefined ? {} : { input: run.input }),
  });
}

const PREFIX = { ipv4: 'iptables', ipv6: 'ip6tables' } as const;
const NAMES = { ipv4: 'IPv4', ipv6: 'IPv6' } as const;

/**
 * The name leads to xtables-nft-multi or xtables-legacy-multi, directly or through /etc/alternatives. Before release 1.8
 * there was one program, which was what is called legacy since.
 */
function variantOf(program: string): 'nft' | 'legacy' {
  return basename(realpathSync.native(program)).includes('nft') ? 'nft' : 'legacy';
}

/**
 * iptables-legacy takes one lock for all namespaces of a host. In a container's namespace, which only this process writes,
 * it is given a file that is this process's own and leaves nothing behind: flock works on entries of /proc too.
 */
function lockFile(where: 'host' | 'container'): Record<string, string> {
  return where === 'host' ? {} : { XTABLES_LOCKFILE: `/proc/${process.pid}/stat` };
}
