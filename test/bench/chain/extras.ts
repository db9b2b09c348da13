/** What a chain costs besides time. Counted in rounds of their own, since what counts slows down. */
import { readFileSync, rmSync } from 'node:fs';
import { dropNamespace, makeNamespace } from './crowd.ts';
import { runWrapped } from './invoke.ts';
import type { List, PluginSuite } from './suites.ts';

export interface Extras {
  /** Programs that the plugins of one chain started, the plugins themselves not counted. */
  readonly children: Readonly<Record<'ADD' | 'DEL', number>>;
  /** MiB; the highest resident set of any process of the chain (pages of its executable, shared by all, included). */
  readonly peakMemory: number;
}

/** One ADD and one DEL under strace (successful execve), and again under time(1) (ru_maxrss). */
export function countExtras(suite: PluginSuite, list: List): Extras {
  const children = counted(suite, list);
  let peakMemory = 0;
  addAndDelete(suite, list, TIME, () => (peakMemory = Math.max(peakMemory, highest())));
  return { children, peakMemory };
}

/** strace loses a tracee of many threads now and then (ptrace: EIO), and the plugin with it: then all is counted anew. */
function counted(suite: PluginSuite, list: List, attempt = 1): Record<'ADD' | 'DEL', number> {
  const children = { ADD: 0, DEL: 0 };
  try {
    addAndDelete(suite, list, STRACE, (verb, plugins) => (children[verb] = programs() - plugins));
    return children;
  } catch (thrown) {
    rmSync(LOG, { force: true });
    if (attempt === ATTEMPTS) throw thrown;
    return counted(suite, list, attempt + 1);
  }
}

const ATTEMPTS = 5;
let calls = 0;

type Told = (verb: 'ADD' | 'DEL', plugins: number) => void;

/** In a namespace of its own: the reference's consul-cni leaves its chains, and stops at them when it is called again. */
function addAndDelete(
  suite: PluginSuite,
  list: List,
  wrap: readonly [string, ...string[]],
  told: Told,
): void {
  const name = `counted-${suite.name}-${String(calls++)}`;
  const allocation = { id: name, netns: makeNamespace(name), ports: [9_100 + calls] };
  try {
    const add = runWrapped(suite, list, 'ADD', allocation, undefined, wrap);
    told('ADD', add.plugins);
    const del = runWrapped(suite, list, 'DEL', allocation, add.result, wrap);
    told('DEL', del.plugins);
  } finally {
    dropNamespace(name);
  }
}

const LOG = '/run/bench-counted.log';
const STRACE: readonly [string, ...string[]] = [
  'strace',
  '-f',
  '-qq',
  '-A',
  '-o',
  LOG,
  '-e',
  'trace=execve',
  '-e',
  'status=successful',
];
/** `time` is small: a process counts what its parent had in memory at the fork as its own. */
const TIME: readonly [string, ...string[]] = ['/usr/bin/time', '-a', '-o', LOG, '-f', '%M'];

function programs(): number {
  return take().filter((line) => line.includes('execve(')).length;
}

function highest(): number {
  return Math.max(...take().map(Number).filter(Number.isFinite)) / 1024;
}

function take(): string[] {
  const lines = readFileSync(LOG, 'utf8').trim().split('\n');
  rmSync(LOG);
  return lines;
}
