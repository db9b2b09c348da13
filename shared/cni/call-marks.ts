import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { sha512 } from './sha512.ts';

/**
 * Marks of calls in progress, for repair. While a runtime adds or deletes an attachment, the result that it cached is not what the plugins
 * set up: repair must not restore what a DEL has just removed. ADD and DEL of every plugin write a mark before they change anything, and
 * the runtime caches its result after the last plugin's ADD: an attachment is as its cached result says if that is newer than the mark.
 *
 *     /run/weft/calls/<hash>     "<command> <network>-<container id>-<ifname>"
 *
 * Marks are written only while the directory exists: repair creates it, and removes marks of attachments without a cached result.
 */
export const MARKS_DIRECTORY = '/run/weft/calls';

export interface Attachment {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string;
}

/** Runs calls that are for no container of the host, and leave no marks: the agent's warm-up. */
export function withoutMarks<T>(work: () => T): T {
  leavesMarks = false;
  try {
    return work();
  } finally {
    leavesMarks = true;
  }
}

let leavesMarks = true;

/** Costs a failing system call where repair is not in use. */
export function markCall(command: 'ADD' | 'DEL', attachment: Attachment): void {
  try {
    if (!leavesMarks || statSync(MARKS_DIRECTORY, { throwIfNoEntry: false }) === undefined) return;
    writeFileSync(markOf(attachment), `${command} ${nameOf(attachment)}`, { mode: 0o600 });
  } catch {
    // A read-only or full /run must not fail a call.
  }
}

/** Whether no call for the attachment has begun since its ADD ended. @param addedAtMs modification time of the cached result */
export function isUndisturbed(attachment: Attachment, addedAtMs: number): boolean {
  const mark = markOf(attachment);
  const stat = statSync(mark, { throwIfNoEntry: false });
  if (stat === undefined || stat.mtimeMs < addedAtMs) return true;
  // Times have the kernel's resolution of some milliseconds: an ADD ends in the same one as its last mark.
  return stat.mtimeMs === addedAtMs && readFileSync(mark, 'utf8').startsWith('ADD ');
}

/** When the last call for the attachment began, in milliseconds since 1970; undefined if no mark tells. */
export function lastCallAtMs(attachment: Attachment): number | undefined {
  return statSync(markOf(attachment), { throwIfNoEntry: false })?.mtimeMs;
}

/** The attachment's name in a mark and in libcni's cache. */
export function nameOf({ network, containerId, ifname }: Attachment): string {
  return `${network}-${containerId}-${ifname}`;
}

/** A file name for the attachment, whatever the length of its own: 40 hex digits. */
export function fileNameOf(attachment: Attachment): string {
  return sha512(nameOf(attachment)).toString('hex').slice(0, 40);
}

function markOf(attachment: Attachment): string {
  return `${MARKS_DIRECTORY}/${fileNameOf(attachment)}`;
}
