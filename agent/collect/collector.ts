import { toCniError } from '../../shared/cni/errors.ts';
import { keyValues, type Fields, type Log } from '../log.ts';
import { piecesOf, type Leak } from './judge.ts';
import type { Look } from './look.ts';

/** What the collector uses of the host; tests replace it. */
export interface CollectedHost {
  readonly look: () => Look;
  /** @returns false if the container is not to be removed after all */
  readonly remove: (leak: Leak) => boolean;
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number;
}

/** Looks for leaks every ten minutes, or less often where that takes much time, and logs each once. With `write`, removes them, one between two plugin calls. */
export class Collector {
  readonly #host: CollectedHost;
  readonly #log: Log;
  readonly #write: boolean;
  #lookAt: number;
  #queue: Leak[] = [];
  #reported: ReadonlySet<string> = new Set();
  /** For the metrics. `leaks`: containers that the last look found and that have not been removed since. */
  readonly counts = { looks: 0, leaks: 0, removed: 0, failures: 0 };

  constructor(host: CollectedHost, log: Log, write: boolean) {
    this.#host = host;
    this.#log = log;
    this.#write = write;
    this.#lookAt = host.now();
  }

  /** Called between plugin calls. Nearly always takes no time. */
  step(): void {
    const next = this.#queue.shift();
    if (next !== undefined) this.#remove(next);
    else if (this.#host.now() >= this.#lookAt) this.#look();
  }

  /** Milliseconds until {@link step} has something to do; 0 or less: now. */
  untilNextMs(): number {
    return this.#queue.length > 0 ? REMOVAL_PAUSE_MS : this.#lookAt - this.#host.now();
  }

  #look(): void {
    const began = this.#host.now();
    this.counts.looks += 1;
    try {
      const { leaks, doubts } = this.#host.look();
      this.counts.leaks = leaks.length;
      for (const { network, containerId, reason } of doubts)
        this.#log('debug', `gc: kept network=${network} container=${containerId}: ${reason}`);
      for (const leak of leaks.filter((one) => !this.#reported.has(keyValues(nameOf(one))))) {
        const fields = { ...nameOf(leak), age: `${leak.ageSeconds ?? '?'}s` };
        this.#log('warning', `gc: leak ${keyValues(fields)}: ${leak.reason}; ${shown(piecesOf(leak))}`, {
          event: 'leak',
          ...fields,
          reason: leak.reason,
        });
      }
      this.#reported = new Set(leaks.map((leak) => keyValues(nameOf(leak))));
      if (this.#write) this.#queue = [...leaks];
    } catch (thrown) {
      this.counts.failures += 1;
      this.#log('error', `gc: failed: ${toCniError(thrown).message}`);
    }
    const now = this.#host.now();
    this.#lookAt = now + Math.max(PERIOD_MS, COST_FACTOR * (now - began));
  }

  #remove(leak: Leak): void {
    const began = this.#host.now();
    try {
      if (!this.#host.remove(leak)) return;
      this.counts.removed += 1;
      this.counts.leaks -= 1;
      const ms = (this.#host.now() - began).toFixed(0);
      const fields = { ...nameOf(leak), pieces: piecesOf(leak).length, ms };
      this.#log('warning', `gc: removed ${keyValues(fields)}`, { event: 'collection', ...fields });
    } catch (thrown) {
      this.counts.failures += 1;
      this.#log('error', `gc: cannot remove ${keyValues(nameOf(leak))}: ${toCniError(thrown).message}`);
    }
  }
}

function nameOf({ network, containerId }: Leak): Fields {
  return { network, container: containerId };
}

function shown(pieces: readonly string[]): string {
  const more = pieces.length - MOST_SHOWN;
  return [...pieces.slice(0, MOST_SHOWN), ...(more > 0 ? [`and ${more} more`] : [])].join(', ');
}

const PERIOD_MS = 600_000;
/** Looks take 0.0125 % of the time at most. */
const COST_FACTOR = 8_000;
/** Between two removals, when no call comes. */
const REMOVAL_PAUSE_MS = 200;
const MOST_SHOWN = 6;
