import { CniCode, CniError } from '../../cni/errors.ts';
import { isErrno, KernelError } from '../../kernel/errno.ts';
import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import { withNamespaceLock } from '../../kernel/locks.ts';
import { NftConnection } from './connection.ts';
import { NftReader } from './reader.ts';

export interface ChangeOptions {
  /** For the error: `set up masquerading`. */
  readonly what: string;
}

/** What to commit, from what stands there. */
type Plan = (view: NftReader) => readonly NetlinkRequest[];

/**
 * Makes nf_tables what `plan` wants: it looks at what stands there and answers with requests, which are committed as one
 * transaction; none for none. When anybody commits between its looking and the commit, it is asked again, so it must be pure.
 * @throws CniError 999 when the kernel refuses, with nothing changed; 11 when others never kept still
 */
export function changeNft(options: ChangeOptions, plan: Plan): void {
  withNamespaceLock(() => {
    using connection = NftConnection.open();
    lookAndCommit(connection, connection.generation(), options, plan);
  });
}

/** For what only takes away: a kernel without nf_tables holds nothing. */
export function removeFromNft(options: ChangeOptions, plan: Plan): void {
  withNamespaceLock(() => {
    const there = connectIfThere();
    if (there === undefined) return;
    using connection = there.connection;
    lookAndCommit(connection, there.generation, options, plan);
  });
}

/** Looks, without changing anything. */
export function readNft<T>(look: (view: NftReader) => T): T {
  using connection = NftConnection.open();
  return look(new NftReader(connection));
}

/** Whether this kernel has nf_tables at all. */
export function hasNftables(): boolean {
  const there = connectIfThere();
  there?.connection.close();
  return there !== undefined;
}

const MOST_ATTEMPTS = 50;

/** Asking for the generation makes the kernel load the module. @returns undefined where there is none to load */
function connectIfThere(): { connection: NftConnection; generation: number } | undefined {
  let connection: NftConnection | undefined;
  try {
    connection = NftConnection.open();
    return { connection, generation: connection.generation() };
  } catch (thrown) {
    connection?.close();
    if (thrown instanceof KernelError) return undefined;
    throw thrown;
  }
}

function lookAndCommit(connection: NftConnection, first: number, { what }: ChangeOptions, plan: Plan): void {
  const view = new NftReader(connection);
  let generation = first;
  for (let attempt = 1; attempt <= MOST_ATTEMPTS; attempt++) {
    const seen = generation;
    if (attempted(what, () => connection.commit(plan(view), seen))) return;
    generation = connection.generation();
  }
  throw new CniError(
    CniCode.TryAgainLater,
    `could not ${what}: another program changed the firewall during each of ${MOST_ATTEMPTS} attempts`,
    { details: 'find what rewrites it all the time: nft monitor' },
  );
}

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
