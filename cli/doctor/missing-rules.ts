import { missingOnHost } from '../attachments/missing.ts';
import type { Finding } from './finding.ts';
import type { Host } from './examined-host.ts';

/** Compares the rules of this host with what its running allocations need, as `weft repair` does. */
export async function missingRules(host: Host): Promise<Finding[]> {
  // Kernel parameters are checks of their own.
  const { pieces, problems } = await missingOnHost(host.attachments(), { settings: false });
  if (pieces.length === 0 && problems.length > 0) throw new Error(problems.join('; '));
  if (pieces.length === 0) return [];
  const more = pieces.length > SHOWN ? `; and ${pieces.length - SHOWN} more` : '';
  return [
    {
      id: 'rules-missing',
      what: `${pieces.slice(0, SHOWN).join('; ')}${more}`,
      where: 'rules of running allocations',
      remedy: 'weft repair',
    },
  ];
}

const SHOWN = 3;
