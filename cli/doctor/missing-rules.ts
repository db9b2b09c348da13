import { desiredOf, loadRoles, repairables } from '../../agent/repair/calls.ts';
import { missingPieces } from '../../agent/repair/host-rules.ts';
import { withCallScope } from '../../shared/kernel/call-scope.ts';
import type { Finding } from './finding.ts';
import type { Host } from './host.ts';

/** Compares the rules of this host with what its running allocations need, as `weft repair` does. */
export async function missingRules(host: Host): Promise<Finding[]> {
  const roles = await loadRoles();
  const running = host.attachments().filter(({ namespace }) => namespace !== undefined);
  const problems: string[] = [];
  const problem = (line: string): void => void problems.push(line);
  const missing = withCallScope(() => {
    const desired = desiredOf(roles, repairables(roles, running, problem), problem);
    // Kernel parameters are checks of their own.
    return missingPieces({ ...desired, settings: [] });
  });
  if (missing.length === 0 && problems.length > 0) throw new Error(problems.join('; '));
  if (missing.length === 0) return [];
  const more = missing.length > SHOWN ? `; and ${missing.length - SHOWN} more` : '';
  return [
    {
      id: 'rules-missing',
      what: `${missing.slice(0, SHOWN).join('; ')}${more}`,
      where: 'rules of running allocations',
      remedy: 'weft repair',
    },
  ];
}

const SHOWN = 3;
