/** What an ADD would cost if starting programs cost nothing, and what starting them costs. */
import { dropNamespace, makeNamespace } from './crowd.ts';
import { chainInProcess } from './in-process.ts';
import { drive } from './driver.ts';
import { milliseconds } from './invoke.ts';
import { summarise, type Summary } from './statistics.ts';
import type { List, PluginSuite } from './suites.ts';

export type FloorTimes = Readonly<Record<'ADD' | 'DEL', Summary>>;

/** The same kernel operations from one long-lived process: the plugins of the chain called as functions, one round after the other. */
export class Floor {
  readonly #times: Record<'ADD' | 'DEL', number[]> = { ADD: [], DEL: [] };

  /** Round 0 warms up. */
  round(list: List, round: number): void {
    const name = `floor-${round}`;
    const allocation = { id: name, netns: makeNamespace(name), ports: [9004] };
    const began = process.hrtime.bigint();
    const result = chainInProcess(list, 'ADD', allocation);
    const added = milliseconds(began);
    const again = process.hrtime.bigint();
    chainInProcess(list, 'DEL', allocation, result);
    const deleted = milliseconds(again);
    dropNamespace(name);
    if (round === 0) return;
    this.#times.ADD.push(added);
    this.#times.DEL.push(deleted);
  }

  times(): FloorTimes {
    return { ADD: summarise(this.#times.ADD), DEL: summarise(this.#times.DEL) };
  }
}

/** Milliseconds that the programs of one chain take to start and end when they have nothing to do: each prints its version. */
export function bareStarts(suite: PluginSuite, { plugins }: List): number {
  let total = 0;
  for (const { type } of plugins) {
    total += drive({ file: `${suite.binDir}/${type}`, env: {}, input: IGNORED }).milliseconds;
  }
  return total;
}

/** As much as for an ADD. */
const IGNORED = JSON.stringify({ nothing: 'to do'.repeat(60) });
