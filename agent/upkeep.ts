import { readNodeConfig } from '../shared/config/node-config.ts';
import { toCniError } from '../shared/cni/errors.ts';
import type { LoadedPlugins } from './call.ts';
import { Collector } from './collect/collector.ts';
import { loadTracesRoles, look } from './collect/look.ts';
import { removeLeak } from './collect/remove.ts';
import type { Log } from './log.ts';
import { loadRoles } from './repair/calls.ts';
import { createMarks, removeOldMarks, Repairer, type RepairReport } from './repair/repairer.ts';
import { LONGEST_DELAY_MS, RulesetEvents } from './repair/ruleset-events.ts';
import { hostFingerprint, Watcher } from './repair/watcher.ts';

/** What the agent does between calls. */
export interface Upkeep {
  step(): void;
  close(): void;
  /** How long the agent may wait for a call before the next {@link step}, and the descriptor that ends the wait when it is readable. */
  wait(): UpkeepWait;
  /** What it has done since the agent started, for the metrics. */
  counts(): UpkeepCounts;
}

export interface UpkeepWait {
  readonly milliseconds: number;
  readonly fd?: number | undefined;
}

/** A part that is off has none. */
export interface UpkeepCounts {
  readonly repairs?: Watcher['counts'];
  readonly collections?: Collector['counts'];
}

/** As /etc/weft/weft.json asks for it when the agent starts. A part that cannot be had is logged, and the agent goes on without it. */
export async function startUpkeep(plugins: LoadedPlugins, log: Log): Promise<Upkeep> {
  const parts = [
    await orNone('repair', log, () => startRepair(log)),
    await orNone('gc', log, () => startCollection(plugins, log)),
  ];
  return {
    step: () => {
      for (const part of parts) part.step();
    },
    close: () => {
      for (const part of parts) part.close();
    },
    wait: () => {
      const waits = parts.map((part) => part.wait());
      return {
        milliseconds: Math.min(...waits.map(({ milliseconds }) => milliseconds)),
        fd: waits.find(({ fd }) => fd !== undefined)?.fd,
      };
    },
    counts: () => Object.assign({}, ...parts.map((part) => part.counts())) as UpkeepCounts,
  };
}

async function orNone(name: string, log: Log, start: () => Promise<Upkeep>): Promise<Upkeep> {
  try {
    return await start();
  } catch (thrown) {
    log('error', `${name}: not possible: ${toCniError(thrown).message}`);
    return NONE;
  }
}

async function startRepair(log: Log): Promise<Upkeep> {
  const { repair: mode = 'on' } = readNodeConfig();
  if (mode === 'off') return NONE;
  createMarks();
  const events = new RulesetEvents();
  const repairer = new Repairer(await loadRoles());
  const run = (): RepairReport => {
    removeOldMarks();
    return repairer.repair({ write: mode === 'on' });
  };
  const host = {
    hasDeletions: () => events.hasDeletions(),
    fingerprint: hostFingerprint,
    repair: run,
    now: () => performance.now(),
  };
  const watcher = new Watcher(host, log, mode === 'on');
  return {
    step: () => watcher.step(),
    close: () => events.close(),
    wait: () => {
      const fd = events.wakeFd();
      const milliseconds = Math.max(0, watcher.untilNextMs());
      return fd === undefined
        ? { milliseconds: Math.min(milliseconds, LONGEST_DELAY_MS) }
        : { milliseconds, fd };
    },
    counts: () => ({ repairs: watcher.counts }),
  };
}

async function startCollection(plugins: LoadedPlugins, log: Log): Promise<Upkeep> {
  const { gc: mode = 'log' } = readNodeConfig();
  if (mode === 'off') return NONE;
  const roles = await loadTracesRoles();
  const warn = (line: string): void => log('warning', `gc: ${line}`);
  const host = {
    look: () => look(roles),
    remove: (leak: Parameters<typeof removeLeak>[0]) => removeLeak(leak, plugins, warn),
    now: () => performance.now(),
  };
  const collector = new Collector(host, log, mode === 'on');
  return {
    step: () => collector.step(),
    close: () => undefined,
    wait: () => ({ milliseconds: Math.max(0, collector.untilNextMs()) }),
    counts: () => ({ collections: collector.counts }),
  };
}

const NONE: Upkeep = {
  step: () => undefined,
  close: () => undefined,
  wait: () => ({ milliseconds: Number.POSITIVE_INFINITY }),
  counts: () => ({}),
};
