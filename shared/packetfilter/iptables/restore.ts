import type { TableName } from '../ruleset.ts';
import type { Operation } from '../diff.ts';

/**
 * Input for `iptables-restore --noflush` that carries out the steps as one transaction. Chains are made by `-N`, because the usual
 * `:CHAIN` line would silently empty one that another program made meanwhile; `-N` fails, and the table is read again.
 */
export function restoreInput(table: TableName, steps: readonly Operation[]): string {
  return [`*${table}`, ...steps.map(line), 'COMMIT', ''].join('\n');
}

/** One step as iptables would be called for it; also for messages. */
export function line(step: Operation): string {
  switch (step.do) {
    case 'createChain':
      return `-N ${step.chain}`;
    case 'flushChain':
      return `-F ${step.chain}`;
    case 'deleteChain':
      return `-X ${step.chain}`;
    case 'deleteRule':
      return `-D ${step.chain} ${step.entry.text}`;
    case 'insertRule':
      return `-I ${step.chain} ${step.index + 1} ${step.entry.text}`;
    case 'appendRule':
      return `-A ${step.chain} ${step.entry.text}`;
  }
}
