import { desiredOf, loadRoles, repairables } from '../../agent/repair/calls.ts';
import { missingPieces } from '../../agent/repair/missing-pieces.ts';
import type { InventoryEntry } from '../../shared/attachments/inventory.ts';
import { withCallScope } from '../../shared/kernel/call-scope.ts';

export interface Missing {
  /** What the host lacks, one phrase for each piece. */
  readonly pieces: readonly string[];
  /** Why an attachment could not be compared. */
  readonly problems: readonly string[];
}

/** Compares this host with what its running attachments need, as `weft repair` does. Changes nothing. */
export async function missingOnHost(
  entries: readonly InventoryEntry[],
  { settings }: { readonly settings: boolean },
): Promise<Missing> {
  const roles = await loadRoles();
  const running = entries.filter(({ namespace }) => namespace !== undefined);
  const problems: string[] = [];
  const problem = (line: string): void => void problems.push(line);
  const pieces = withCallScope(() => {
    const desired = desiredOf(roles, repairables(roles, running, problem), problem);
    return missingPieces(settings ? desired : { ...desired, settings: [] });
  });
  return { pieces, problems };
}
