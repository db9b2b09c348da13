import { makeNamespace, dropNamespace } from './crowd.ts';
import type { Allocation, Verb } from './calls.ts';
import { countExtras, type Extras } from './extras.ts';
import { bareStarts, Floor, type FloorTimes } from './floor.ts';
import { agentCpu } from './agent.ts';
import { runChain } from './invoke.ts';
import { mean, summarise, type Summary } from './statistics.ts';
import type { Backend, List, PluginSuite } from './suites.ts';

export interface Measurement extends Extras {
  readonly backend: Backend;
  readonly suite: PluginSuite['name'];
  /** Allocations on the host, the measured one included. */
  readonly present: number;
  readonly verbs: Readonly<Record<Verb, Summary>>;
  /** Milliseconds of processor per ADD and per DEL, all processes together. */
  readonly cpu: Readonly<Record<'ADD' | 'DEL', number>>;
  /** Median of each plugin's ADD. */
  readonly plugins: Readonly<Record<string, number>>;
  /** Ours only: the same work without processes, and what is left of an ADD without the starts of its plugins. */
  readonly floor?: FloorTimes;
  readonly beyondStarts?: Summary;
}

export interface MeasureOptions {
  readonly backend: Backend;
  readonly list: List;
  readonly present: number;
  readonly suites: readonly PluginSuite[];
  readonly rounds: number;
}

/**
 * Suites take turns, round by round, each round with a fresh namespace, and in each round another one begins; the first round warms up and is
 * dropped. Work in this process comes last: its compilers and collectors go on for a while on other threads.
 */
export function measure(options: MeasureOptions): Measurement[] {
  const samples = options.suites.map((suite) => ({ suite, own: new Samples() }));
  for (let round = 0; round <= options.rounds; round++) {
    const turns = round % 2 === 0 ? samples : samples.toReversed();
    for (const { suite, own } of turns) oneRound(options, suite, round, own);
  }
  const floor = new Floor();
  for (let round = 0; round <= options.rounds; round++) floor.round(options.list, round);
  return samples.map(({ suite, own }) => ({
    ...own.measurement(options, suite),
    ...(suite.name === 'weft' ? { floor: floor.times(), beyondStarts: summarise(own.beyondStarts) } : {}),
    ...countExtras(suite, options.list),
  }));
}

/** Milliseconds: the agent looks whether rules are missing 100 ms after another process, here another suite's DEL, has deleted some. */
const REPAIR_LOOK = 300;

class Samples {
  readonly total: Record<Verb, number[]> = { ADD: [], CHECK: [], DEL: [] };
  readonly cpu: Record<'ADD' | 'DEL', number[]> = { ADD: [], DEL: [] };
  readonly plugins = new Map<string, number[]>();
  readonly beyondStarts: number[] = [];

  measurement(
    { backend, present }: MeasureOptions,
    suite: PluginSuite,
  ): Omit<Measurement, keyof Extras | 'floor' | 'beyondStarts'> {
    return {
      backend,
      present,
      suite: suite.name,
      verbs: {
        ADD: summarise(this.total.ADD),
        CHECK: summarise(this.total.CHECK),
        DEL: summarise(this.total.DEL),
      },
      cpu: { ADD: mean(this.cpu.ADD), DEL: mean(this.cpu.DEL) },
      plugins: Object.fromEntries([...this.plugins].map(([name, list]) => [name, summarise(list).median])),
    };
  }
}

function oneRound({ list }: MeasureOptions, suite: PluginSuite, round: number, samples: Samples): void {
  const name = `measured-${suite.name}-${round}`;
  const allocation: Allocation = { id: name, netns: makeNamespace(name), ports: [9002] };
  const timed = (verb: Verb, prevResult?: unknown): unknown => {
    const agentBefore = agentCpu();
    const { times, result, cpu } = runChain(suite, list, verb, allocation, prevResult);
    if (round === 0) return result;
    samples.total[verb].push(times.total);
    if (verb !== 'CHECK') samples.cpu[verb].push(cpu + agentCpu() - agentBefore);
    if (verb !== 'ADD') return result;
    for (const [plugin, took] of times.plugins)
      samples.plugins.set(plugin, [...(samples.plugins.get(plugin) ?? []), took]);
    if (suite.name === 'weft') samples.beyondStarts.push(times.total - bareStarts(suite, list));
    return result;
  };
  if (suite.name === 'agent') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, REPAIR_LOOK);
  try {
    const result = timed('ADD');
    // Debian's portmap 1.1.1 fails its own CHECK of a container without IPv6.
    if (suite.name !== 'reference') timed('CHECK', result);
    timed('DEL', result);
  } finally {
    dropNamespace(name);
  }
}
