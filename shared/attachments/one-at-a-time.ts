import { withLockWherePossible } from '../kernel/locks.ts';
import { masqueradeChain, type Attachment } from '../packetfilter/names.ts';

/**
 * Runs an ADD or a DEL that has several steps: those of one plugin for one container on one network take turns. A runtime that gives up on
 * an ADD may call DEL while the ADD still runs, and neither may leave a part, such as an interface whose address is not leased any more.
 * @param plugin its name, part of the lock's
 * @throws CniError 11 when the other call takes longer than this one's deadline
 */
export function oneAtATime<T>(plugin: string, attachment: Attachment, work: () => T): T {
  return withLockWherePossible(`${plugin}-${masqueradeChain(attachment)}`, work);
}
