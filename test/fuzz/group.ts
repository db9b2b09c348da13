import { Random } from '../support/random.ts';
import { makeCase, type Case } from './cases.ts';
import { binDir } from '../support/executables.ts';
import { plainBin, routeOf } from '../support/mixed-calls.ts';
import { runCase, type Cost } from './executables.ts';
import { place, remove } from './files.ts';
import { differences, look, makeHost, type Untouched } from './host.ts';
import { inProcessFolder, runInProcess } from './in-process.ts';
import { describe, judge, type Answer } from './judge.ts';

/** Cases that share a host: their numbers decide what they are, so that any group can be repeated alone. */
export interface Group {
  readonly seed: number;
  readonly first: number;
  readonly cases: number;
  /** The plugins inside this process, from source. */
  readonly isInProcess?: boolean;
  /** Compares the host with its first state after every case instead of at the end. */
  readonly isThorough?: boolean;
}

export interface GroupReport {
  /** How often each verb succeeded, and each code was answered. */
  readonly outcomes: ReadonlyMap<string, number>;
  readonly slowest: Cost;
  readonly largest: Cost;
  readonly failures: readonly string[];
}

const SECONDS = 5;
const MEBIBYTES = 400;

/** Runs the cases on this process's own host, one after the other. */
export async function runGroup({
  seed,
  first,
  cases,
  isInProcess = false,
  isThorough = false,
}: Group): Promise<GroupReport> {
  let before = await makeHost();
  const outcomes = new Map<string, number>();
  const failures: string[] = [];
  let [slowest, largest]: Cost[] = [];
  for (let number = first; number < first + cases; number += 1) {
    const route = routeOf(number);
    const path = isInProcess ? inProcessFolder() : route === 'executable' ? plainBin : binDir;
    const one = makeCase(new Random(seed + number * 7919), path);
    place(one.files);
    let { answer, cost } = await (isInProcess ? runInProcess(one) : runCase(one, route));
    // On a busy machine, a call can take long once without being slow.
    for (let left = 2; left > 0 && cost.seconds > SECONDS; left -= 1)
      ({ answer, cost } = await (isInProcess ? runInProcess(one) : runCase(one, route)));
    remove(one.files);
    const kind = verdict(one, answer, cost, (problem) =>
      failures.push(`case ${number}: ${problem}\n${describe(one, answer)}`),
    );
    outcomes.set(kind, (outcomes.get(kind) ?? 0) + 1);
    if (cost.seconds > (slowest?.seconds ?? 0)) slowest = cost;
    if (cost.mebibytes > (largest?.mebibytes ?? 0)) largest = cost;
    if (isThorough) await compare(`case ${number}`, describe(one, answer));
  }
  if (!isThorough) await compare(`cases ${first} to ${first + cases - 1}`, 'add --thorough to find the case');
  const none = { seconds: 0, mebibytes: 0 };
  return { outcomes, slowest: slowest ?? none, largest: largest ?? none, failures };

  async function compare(what: string, more: string): Promise<void> {
    const after: Untouched = await look();
    const changes = differences(before, after);
    if (changes.length === 0) return;
    failures.push(`${what}: changed what is not the plugin's:\n${changes.slice(0, 20).join('\n')}\n${more}`);
    before = after;
  }
}

function verdict(one: Case, answer: Answer, cost: Cost, report: (problem: string) => void): string {
  if (cost.mebibytes > MEBIBYTES) report(`needed ${cost.mebibytes.toFixed(0)} MiB, more than ${MEBIBYTES}`);
  if (cost.seconds > SECONDS) report(`took ${cost.seconds.toFixed(1)} s, longer than ${SECONDS}`);
  try {
    return judge(one, answer);
  } catch (thrown) {
    report((thrown as Error).message);
    return 'failed';
  }
}
