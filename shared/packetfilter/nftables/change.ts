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

/** The requests to commit, computed from the present state, which has this generation. */
type Plan = (reader: NftReader, generation: number) => readonly NetlinkRequest[];

/**
 * Commits the requests that `plan` computes from the present state as one transaction. If another program commits in between, `plan` is called
 * again, so it must be pure.
 * @throws CniError 999 if the kernel refuses, with nothing changed; 11 if other programs commit during every attempt
 */
export function changeNft(options: ChangeOptions, plan: Plan): void {
  withNamespaceLock(() => {
    using connection = NftConnection.open();
    commitOrPlanAgain(connection, planned(connection, connection.generation(), options, plan), options, plan);
  });
}

/**
 * As {@link changeNft} for plans that only remove: does nothing on a kernel without nf_tables, and takes no lock when there is nothing to
 * remove, which is nearly always so in an ADD.
 */
export function removeFromNft(options: ChangeOptions, plan: Plan): void {
  const connected = tryToConnect();
  if (connected === undefined) return;
  using connection = connected.connection;
  const first = planned(connection, connected.generation, options, plan);
  if (first.requests.length > 0) withNamespaceLock(() => commitOrPlanAgain(connection, first, options, plan));
}

/** Reads without changing anything. */
export function readNft<T>(read: (reader: NftReader) => T): T {
  using connection = NftConnection.open();
  return read(new NftReader(connection));
}

/** What {@link changeNft} would commit; undefined without nf_tables. */
export function planNft(plan: Plan): readonly NetlinkRequest[] | undefined {
  const connected = tryToConnect();
  if (connected === undefined) return undefined;
  using connection = connected.connection;
  return plan(new NftReader(connection), connected.generation);
}

/** It grows with each change of the ruleset; undefined without nf_tables. */
export function rulesetGeneration(): number | undefined {
  const connected = tryToConnect();
  connected?.connection.close();
  return connected?.generation;
}

/** Whether this kernel has nf_tables. */
export function hasNftables(): boolean {
  return rulesetGeneration() !== undefined;
}

const MOST_ATTEMPTS = 50;

/** The request for the generation makes the kernel load the module. @returns undefined if there is none */
function tryToConnect(): { connection: NftConnection; generation: number } | undefined {
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

interface Planned {
  readonly requests: readonly NetlinkRequest[];
  /** Of the state that they were computed from. */
  readonly generation: number;
}

function planned(
  connection: NftConnection,
  generation: number,
  { what }: ChangeOptions,
  plan: Plan,
): Planned {
  return { requests: explained(what, () => plan(new NftReader(connection), generation)), generation };
}

function commitOrPlanAgain(
  connection: NftConnection,
  first: Planned,
  options: ChangeOptions,
  plan: Plan,
): void {
  const { what } = options;
  let { requests, generation } = first;
  for (let attempt = 1; attempt <= MOST_ATTEMPTS; attempt++) {
    if (isCommitted(connection, { requests, generation }, what)) return;
    ({ requests, generation } = planned(connection, connection.generation(), options, plan));
  }
  throw new CniError(
    CniCode.TryAgainLater,
    `could not ${what}: another program changed the firewall during each of ${MOST_ATTEMPTS} attempts`,
    { details: 'find the program that changes it continuously: nft monitor' },
  );
}

/** @returns false if the generation has changed */
function isCommitted(connection: NftConnection, { requests, generation }: Planned, what: string): boolean {
  return explained(what, () => {
    try {
      connection.commit(requests, generation);
      return true;
    } catch (thrown) {
      if (isErrno(thrown, 'ERESTART')) return false;
      throw thrown;
    }
  });
}

function explained<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    if (thrown instanceof CniError) throw thrown;
    const text = thrown instanceof Error ? thrown.message : String(thrown);
    throw new CniError(CniCode.Internal, `could not ${what}: the kernel refused: ${text}`, { cause: thrown });
  }
}
