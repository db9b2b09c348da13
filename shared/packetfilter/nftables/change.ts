import { CniCode, CniError } from '../../cni/errors.ts';
import { isErrno, KernelError } from '../../kernel/errno.ts';
import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import { withTableLock } from '../lock.ts';
import { NftConnection } from './connection.ts';
import { NftView } from './view.ts';

export interface ChangeOptions {
  /** For the error: `set up masquerading`. */
  readonly what: string;
  /** Longest wait for other processes of ours, in milliseconds. */
  readonly timeoutMs?: number;
}

/**
 * Makes nf_tables what `plan` wants: it looks at what stands there and answers with requests, which are committed as one
 * transaction; none for none. When anybody commits between its looking and the commit, it is asked again, so it must be pure.
 * @throws CniError 999 when the kernel refuses, with nothing changed; 11 when others never kept still
 */
export function changeNft(options: ChangeOptions, plan: (view: NftView) => readonly NetlinkRequest[]): void {
  withTableLock(options.timeoutMs ?? DEFAULT_TIMEOUT_MS, () => {
    using connection = NftConnection.open();
    const view = new NftView(connection);
    for (let attempt = 1; attempt <= MOST_ATTEMPTS; attempt++) {
      const generation = connection.generation();
      if (attempted(options.what, () => connection.commit(plan(view), generation))) return;
    }
    throw new CniError(
      CniCode.TryAgainLater,
      `could not ${options.what}: another program changed the firewall during each of ${MOST_ATTEMPTS} attempts`,
      { details: 'find what rewrites it all the time: nft monitor' },
    );
  });
}

/** For what only takes away: a kernel without nf_tables holds nothing. */
export function removeFromNft(
  options: ChangeOptions,
  plan: (view: NftView) => readonly NetlinkRequest[],
): void {
  if (hasNfTables()) changeNft(options, plan);
}

/** Looks, without changing anything. */
export function viewNft<T>(look: (view: NftView) => T): T {
  using connection = NftConnection.open();
  return look(new NftView(connection));
}

/** Whether this kernel has nf_tables at all; asking for the generation makes it load the module. */
export function hasNfTables(): boolean {
  try {
    using connection = NftConnection.open();
    connection.generation();
    return true;
  } catch (thrown) {
    if (thrown instanceof KernelError) return false;
    throw thrown;
  }
}

/** As for iptables' tables, whose changes take turns with these (select.ts). */
const DEFAULT_TIMEOUT_MS = 60_000;
const MOST_ATTEMPTS = 50;

/** @returns false when the generation was another one by then */
function attempted(what: string, commit: () => void): boolean {
  try {
    commit();
    return true;
  } catch (thrown) {
    if (isErrno(thrown, 'ERESTART')) return false;
    if (thrown instanceof CniError) throw thrown;
    const text = thrown instanceof Error ? thrown.message : String(thrown);
    throw new CniError(CniCode.Internal, `could not ${what}: the kernel refused: ${text}`, { cause: thrown });
  }
}
