import { CniCode, CniError } from '../../cni/errors.ts';
import type { RunResult } from '../../process/run.ts';
import type { TableName } from '../ruleset.ts';
import type { Tools } from './tools.ts';

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
        ? `somebody put rules into it that iptables cannot express; look at it with: nft list table ${FAMILIES[tools.family]} ${table}. ${said}`
        : said,
  });
}

/**
 * For a transaction that iptables-restore did not take: nothing of it is in the kernel.
 * @param cause what the kernel refused to us before
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
/** include/xtables.h RESOURCE_PROBLEM: the lock is taken, or the kernel's answer to a conflicting change. */
const RESOURCE_PROBLEM = 4;
const LONGEST_DETAILS = 4000;
