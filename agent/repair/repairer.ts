import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { CachedResultReader, RESULTS_DIR } from '../../shared/attachments/cached-results.ts';
import { inventory } from '../../shared/attachments/inventory.ts';
import { addressesOf } from '../../shared/attachments/namespaces.ts';
import { isUndisturbed, MARKS_DIRECTORY } from '../../shared/cni/call-marks.ts';
import { withoutPrefixLength } from '../../shared/net/address.ts';
import { withCallScope } from '../../shared/kernel/call-scope.ts';
import { withCallDeadline } from '../../shared/kernel/deadline.ts';
import { desiredOf, repairables, type KnownCalls, type Repairable, type Role } from './calls.ts';
import { missingAfterRestoring, missingPieces, restorePieces } from './missing-pieces.ts';
import type { Desired } from '../../shared/packetfilter/desired.ts';

export interface RepairReport {
  /** Running attachments whose rules were compared. */
  readonly attachments: number;
  /** A phrase for each piece that was missing. */
  readonly missing: readonly string[];
  /** What is missing still: with `write`, pieces that could not be restored. */
  readonly left: readonly string[];
  /** Attachments that were left out, each with its reason. */
  readonly problems: readonly string[];
  readonly milliseconds: number;
}

/**
 * Compares the host with what its running attachments need, and restores what is missing: rules, chains, jumps, kernel parameters. Nothing is
 * removed or moved, so rules of other programs stay as they are.
 *
 * An attachment counts while its network namespace exists and has one of its addresses, its result is cached, and no ADD or DEL of it has
 * begun since. That is looked at again under the lock that ADD and DEL take, so that no rule of a deleted container returns.
 *
 * What was read from a cached result and planned for it is kept as long as the file does not change: a look takes a fifth of the first one's time.
 */
export class Repairer {
  readonly #roles: readonly Role[];
  readonly #results = new CachedResultReader();
  readonly #known: KnownCalls = new WeakMap();
  /** Cached result -> its time and the namespace that has the address. */
  #found = new Map<string, string>();
  readonly #problems = new Set<string>();
  readonly #problem = (line: string): void => void this.#problems.add(line);

  constructor(roles: readonly Role[]) {
    this.#roles = roles;
  }

  /** @param write false: only report */
  repair({ write }: { readonly write: boolean }): RepairReport {
    return withCallScope(() => withCallDeadline(() => this.#compareAndRestore(write)));
  }

  #compareAndRestore(write: boolean): RepairReport {
    const began = performance.now();
    this.#problems.clear();
    const attachments = this.#connected(this.#running().filter(isAsAdded));
    const desired = this.#desiredOf(attachments);
    const missing = missingPieces(desired);
    let left = missing;
    for (let round = 1; write && left.length > 0 && round <= MOST_ROUNDS; round++) {
      const before = left.length;
      left = missingAfterRestoring(restorePieces(desired, () => this.#stillValid(attachments, desired)));
      if (left.length === before) break;
    }
    return {
      attachments: attachments.length,
      missing,
      left,
      problems: [...this.#problems],
      milliseconds: performance.now() - began,
    };
  }

  #running(): Repairable[] {
    const entries = inventory({ searchNamespaces: false, readLeases: false, results: this.#results });
    const running = entries.filter(({ state }) => state === 'running');
    return repairables(this.#roles, running, this.#problem, this.#known);
  }

  #desiredOf(attachments: readonly Repairable[]): Desired {
    return desiredOf(this.#roles, attachments, this.#problem);
  }

  /** The same object if all attachments are still there. */
  #stillValid(attachments: readonly Repairable[], desired: Desired): Desired {
    const valid = attachments.filter((one) => isAsAdded(one) && isPresent(one));
    return valid.length === attachments.length ? desired : this.#desiredOf(valid);
  }

  /**
   * The attachments whose namespaces have one of their addresses. To look takes half a millisecond, so what was found in a namespace since the
   * attachment's ADD is kept: an address that something removed since makes no rule wrong.
   */
  #connected(attachments: readonly Repairable[]): readonly Repairable[] {
    const earlier = this.#found;
    this.#found = new Map();
    return attachments.filter((one) => {
      const { cacheFile = '', addedAtMs, namespace } = one.entry;
      const identity = `${addedAtMs} ${namespace?.dev}:${namespace?.ino}`;
      if (earlier.get(cacheFile) !== identity && !hasItsAddress(one, this.#problem)) return false;
      if (namespace !== undefined) this.#found.set(cacheFile, identity);
      return true;
    });
  }
}

/** Containers that share a port are restored one after the other. */
const MOST_ROUNDS = 3;

/** Without the directory for marks, calls that have begun already leave none: the caller waits for their end. @returns whether it was created */
export function createMarks(): boolean {
  if (existsSync(MARKS_DIRECTORY)) return false;
  mkdirSync(MARKS_DIRECTORY, { recursive: true, mode: 0o700 });
  return true;
}

/** Removes the marks of attachments without a cached result: nothing of them can be restored. */
export function removeOldMarks(): void {
  for (const name of readdirSync(MARKS_DIRECTORY)) {
    const file = `${MARKS_DIRECTORY}/${name}`;
    const stat = statSync(file, { throwIfNoEntry: false });
    if (stat === undefined || Date.now() - stat.mtimeMs < OLD_MARK_MS) continue;
    const [, attachment = ''] = readFileSync(file, 'utf8').split(' ');
    if (!existsSync(`${RESULTS_DIR}/${attachment}`)) rmSync(file, { force: true });
  }
}

/** Longer than any call. */
const OLD_MARK_MS = 300_000;

function isAsAdded({ entry }: Repairable): boolean {
  return isUndisturbed(entry, entry.addedAtMs);
}

function isPresent({ entry: { cacheFile = '', addedAtMs, netns } }: Repairable): boolean {
  const cached = statSync(cacheFile, { throwIfNoEntry: false });
  return cached?.mtimeMs === addedAtMs && (netns === '' || existsSync(netns));
}

function hasItsAddress({ entry }: Repairable, problem: (line: string) => void): boolean {
  const { netns: path, addresses } = entry;
  // Without a path, the inventory has found the namespace by the address.
  if (path === '' || addresses.length === 0) return true;
  const present = addressesOf(path) ?? [];
  if (addresses.some((address) => present.includes(withoutPrefixLength(address)))) return true;
  problem(
    `container ${entry.containerId} on network ${entry.network}: namespace ${path} has none of its addresses`,
  );
  return false;
}
