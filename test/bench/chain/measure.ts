import { spawnSync } from 'node:child_process';
import { makeNamespace, dropNamespace } from './crowd.ts';
import { runChain, type Allocation, type Verb } from './invoke.ts';
import { childrenCpu } from './machine.ts';
import { summarise, type Summary } from './statistics.ts';
import type { Backend, List, PluginSuite } from './suites.ts';

export interface Measurement {
  readonly backend: Backend;
  readonly suite: PluginSuite['name'];
  /** Allocations on the host, the measured one included. */
  readonly present: number;
  readonly verbs: Readonly<Record<Verb, Summary>>;
  /** Milliseconds of processor per ADD and per DEL, all processes together. */
  readonly cpu: Readonly<Record<'ADD' | 'DEL', number>>;
  /** Median of each plugin's ADD. */
  readonly plugins: Readonly<Record<string, number>>;
}

export interface MeasureOptions {
  readonly backend: Backend;
  readonly list: List;
  readonly present: number;
  readonly suites: readonly PluginSuite[];
  readonly rounds: number;
}

/** Suites take turns, round by round, each round with a fresh namespace; the first round warms up and is dropped. */
export function measure(options: MeasureOptions): Measurement[] {
  const samples = new Map(options.suites.map((suite) => [suite.name, new Samples()]));
  for (let round = 0; round <= options.rounds; round++) {
    for (const suite of options.suites)
      oneRound(options, suite, round, samples.get(suite.name) ?? new Samples());
  }
  return options.suites.map((suite) =>
    (samples.get(suite.name) ?? new Samples()).measurement(options, suite),
  );
}

class Samples {
  readonly total: Record<Verb, number[]> = { ADD: [], CHECK: [], DEL: [] };
  readonly cpu: Record<'ADD' | 'DEL', number[]> = { ADD: [], DEL: [] };
  readonly plugins = new Map<string, number[]>();

  measurement({ backend, present }: MeasureOptions, suite: PluginSuite): Measurement {
    const mean = (list: readonly number[]): number =>
      list.reduce((sum, value) => sum + value, 0) / Math.max(1, list.length);
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
  const allocation: Allocation = { id: name, netns: makeNamespace(name), port: 9002 };
  const timed = (verb: Verb, prevResult?: unknown): unknown => {
    const cpu = childrenCpu();
    const { times, result } = runChain(suite, list, verb, allocation, prevResult);
    if (round === 0) return result;
    samples.total[verb].push(times.total);
    if (verb !== 'CHECK') samples.cpu[verb].push(childrenCpu() - cpu);
    if (verb === 'ADD')
      for (const [plugin, took] of times.plugins)
        samples.plugins.set(plugin, [...(samples.plugins.get(plugin) ?? []), took]);
    return result;
  };
  try {
    const result = timed('ADD');
    // Debian's portmap 1.1.1 fails its own CHECK of a container without IPv6.
    if (suite.name === 'weft') timed('CHECK', result);
    timed('DEL', result);
  } finally {
    dropNamespace(name);
  }
}

/** How many programs one chain starts, its own plugins included (strace counts execve; not timed). */
export function countPrograms(script: () => string): number {
  const { stderr } = spawnSync('strace', ['-f', '-qq', '-e', 'trace=execve', 'sh', '-c', script()], {
    encoding: 'utf8',
  });
  return stderr.split('\n').filter((line) => line.includes('execve(') && line.includes('= 0')).length;
}
