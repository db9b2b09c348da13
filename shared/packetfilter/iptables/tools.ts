import { realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { CniCode, CniError } from '../../cni/errors.ts';
import { CallCache } from '../../kernel/call-scope.ts';
import { findProgram, runProgram, type RunResult } from '../../process/run.ts';
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
 * Searches once per call and PATH.
 * @param variant default: the variant that the name `iptables` leads to
 * @returns undefined if the host does not have them (an IPv4-only host may lack ip6tables)
 */
export function findTools(family: Family, variant?: Tools['variant']): Tools | undefined {
  const prefix = variant === undefined ? PREFIX[family] : `${PREFIX[family]}-${variant}`;
  const key = `${prefix} ${process.env['PATH'] ?? ''}`;
  return found.get(key, () => searchTools(family, prefix));
}

const found = new CallCache<Tools | undefined>();

function searchTools(family: Family, prefix: string): Tools | undefined {
  const save = findProgram(`${prefix}-save`);
  const restore = findProgram(`${prefix}-restore`);
  if (save === undefined || restore === undefined) return undefined;
  return { family, variant: variantOf(restore), save, restore };
}

/** @throws CniError that says what to install */
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
 * Reading a legacy table creates it (the kernel loads a module and registers its hooks), so a table that does not exist is not read. /proc lists
 * the tables of the caller's namespace.
 */
export function isUnused({ family, variant }: Tools, table: TableName): boolean {
  // Unknown in a user namespace: reading it creates it at worst.
  return variant === 'legacy' && legacyTablesInUse(family)?.includes(table) === false;
}

/** Tools of iptables-legacy for tables that are written in process; searched only if a program has to run. */
export function legacyToolsOnDemand(family: Family): Tools {
  return {
    family,
    variant: 'legacy',
    get save() {
      return needTools(family, 'legacy').save;
    },
    get restore() {
      return needTools(family, 'legacy').restore;
    },
  };
}

export interface ToolRun {
  readonly where: 'host' | 'container';
  readonly input?: string;
  readonly commandPrefix?: readonly string[];
}

/** Runs one of the programs; the caller checks the exit code. */
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
 * The name leads to xtables-nft-multi or xtables-legacy-multi, directly or through /etc/alternatives. Releases before 1.8 are the legacy variant.
 */
function variantOf(program: string): 'nft' | 'legacy' {
  return basename(realpathSync.native(program)).includes('nft') ? 'nft' : 'legacy';
}

/**
 * iptables-legacy takes one lock for all namespaces of a host. In a container's namespace, which only this process changes, it gets a lock file of
 * this process that needs no cleanup: flock(2) works on files in /proc.
 */
function lockFile(where: 'host' | 'container'): Record<string, string> {
  return where === 'host' ? {} : { XTABLES_LOCKFILE: `/proc/${process.pid}/stat` };
}
