import { readNodeConfig } from '../shared/config/node-config.ts';
import { toCniError } from '../shared/cni/errors.ts';
import type { Log } from './log.ts';
import { loadRoles } from './repair/calls.ts';
import { createMarks, removeOldMarks, repair } from './repair/repair.ts';
import { RulesetEvents } from './repair/ruleset-events.ts';
import { hostFingerprint, Watcher } from './repair/watcher.ts';

/** What the agent does between calls. */
export interface Upkeep {
  step(): void;
  close(): void;
}

/** As /etc/weft/weft.json asks for it when the agent starts. If it cannot be had, the agent serves calls without it. */
export async function startUpkeep(log: Log): Promise<Upkeep> {
  try {
    const { repair: mode = 'on' } = readNodeConfig();
    if (mode === 'off') return NONE;
    const roles = await loadRoles();
    createMarks();
    const events = new RulesetEvents();
    const run = (): ReturnType<typeof repair> => {
      removeOldMarks();
      return repair(roles, { write: mode === 'on' });
    };
    const host = {
      hasDeletions: () => events.hasDeletions(),
      fingerprint: hostFingerprint,
      repair: run,
      now: () => performance.now(),
    };
    const watcher = new Watcher(host, log, mode === 'on');
    return { step: () => watcher.step(), close: () => events.close() };
  } catch (thrown) {
    log('error', `repair: not possible: ${toCniError(thrown).message}`);
    return NONE;
  }
}

const NONE: Upkeep = { step: () => undefined, close: () => undefined };
