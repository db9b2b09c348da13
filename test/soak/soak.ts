import { Random } from '../support/random.ts';
import type { Container } from './container.ts';
import { newContainer } from './learn.ts';
import { Violation } from './model.ts';
import * as operations from './operations.ts';
import { CHANGES, DAMAGE_KINDS, DEL_WAYS, type Host } from './operations.ts';
import type { Verb } from './runtime.ts';
import { verifyTraffic } from './traffic.ts';
import { LIST_NAMES, type Backend } from './world.ts';

export interface Options {
  readonly backend: Backend;
  readonly seed: number;
  readonly ops: number;
  /** Ends earlier, after so many seconds. */
  readonly seconds?: number;
  /** Operations at once, each on a container of its own. */
  readonly parallel: number;
  readonly log?: (line: string) => void;
}

interface Step {
  readonly text: string;
  readonly run: () => Promise<void>;
  /** Containers that no other step of the same batch may use. */
  readonly uses: readonly Container[];
}

/** Containers at once. */
const MOST = 30;
const HISTORY = 40;
/** Not ADD and DEL: test/host/plugins/add-and-del-at-once.cases.ts says what may be left of them. */
const RACES: readonly (readonly Verb[])[] = [
  ['ADD', 'ADD'],
  ['ADD', 'CHECK'],
  ['DEL', 'DEL'],
  ['DEL', 'CHECK'],
  ['ADD', 'ADD', 'ADD'],
];

/**
 * Random operations on a host that `learnHost` prepared, in batches of up to `parallel` at once; after each batch the host is compared with
 * the model. At the end everything is deleted, and the host must be as it was.
 * @returns number of operations
 * @throws Violation naming seed, the last operations and the first difference
 */
export async function soak(host: Host, options: Options): Promise<number> {
  const { seed, ops, seconds = Infinity, backend, log = () => undefined } = options;
  const end = performance.now() + seconds * 1000;
  let done = 0;
  const run = new Soak(host, options);
  const history: string[] = [];
  try {
    while (done < ops && performance.now() < end) {
      const batch = run.nextBatch(ops - done);
      done += batch.length;
      history.push(batch.map(({ text }) => text).join(' | '));
      await perform(batch);
      await run.verify();
      if (history.length % 20 === 0) log(`${backend}: ${done} operations, ${run.count} containers`);
    }
    history.push('DEL of all');
    await run.end();
    return done;
  } catch (thrown) {
    const last = history.slice(-HISTORY).map((line) => `   ${line}`);
    throw new Violation(
      `${thrown instanceof Violation ? thrown.message : String((thrown as Error).stack)}\n operations so far (one batch a line):\n${last.join('\n')}\n` +
        ` repeat: npm run soak -- --backend ${backend} --seed ${seed} --ops ${ops} --parallel ${options.parallel}`,
      { cause: thrown },
    );
  }
}

/** Waits for all, so that no plugin still runs when the first failure is reported. */
async function perform(batch: readonly Step[]): Promise<void> {
  const outcomes = await Promise.allSettled(batch.map(({ run }) => run()));
  outcomes.forEach((outcome, at) => {
    if (outcome.status === 'rejected')
      throw new Violation(
        `${batch[at]?.text ?? ''}: ${outcome.reason instanceof Error ? outcome.reason.message : String(outcome.reason)}`,
      );
  });
}

class Soak {
  readonly #random: Random;
  readonly #parallel: number;
  readonly #host: Host;

  constructor(host: Host, { seed, parallel }: Options) {
    this.#random = new Random(seed);
    this.#parallel = parallel;
    this.#host = host;
  }

  get count(): number {
    return this.#host.model.containers.size;
  }

  /** Up to `most` steps that do not use the same containers. */
  nextBatch(most: number): Step[] {
    if (this.#random.chance(0.04)) return [this.#collect()];
    const size = Math.min(most, 1 + this.#random.below(this.#parallel));
    const batch: Step[] = [];
    const used = new Set<Container>();
    for (let at = 0; at < size; at += 1) {
      const step = this.#nextStep(this.#all().filter((one) => !used.has(one)));
      for (const one of step.uses) used.add(one);
      batch.push(step);
    }
    return batch;
  }

  async verify(): Promise<void> {
    const { model, world } = this.#host;
    const alive = this.#all().filter(({ isLost }) => !isLost);
    const [sample, other] = alive.length === 0 ? [] : [this.#random.pick(alive), this.#random.pick(alive)];
    await Promise.all([
      model.verify(),
      sample === undefined ? undefined : model.verifyInside(sample),
      other !== undefined && this.#random.chance(0.3) ? verifyTraffic(world, other) : undefined,
    ]);
  }

  async end(): Promise<void> {
    await Promise.all(this.#all().map((container) => operations.del(this.#host, container, 'as Nomad')));
    await this.#host.model.verify();
  }

  #all(): Container[] {
    return [...this.#host.model.containers];
  }

  #nextStep(free: readonly Container[]): Step {
    const random = this.#random;
    const running = free.filter(({ isLost }) => !isLost);
    const lost = free.filter(({ isLost }) => isLost);
    if (lost.length > 0 && random.chance(0.2)) return this.#endOfLost(random.pick(lost));
    if (this.#host.deleted.length > 0 && random.chance(0.08)) return this.#delLate();
    if (running.length === 0 || (this.count < MOST && random.chance(0.3))) return this.#add();
    return this.#onRunning(random.pick(running), running);
  }

  #onRunning(container: Container, running: readonly Container[]): Step {
    const random = this.#random;
    const host = this.#host;
    const others = running.filter((one) => one !== container);
    const kind = random.below(100);
    if (kind < 12) return step('ADD again', container, () => operations.addAgain(host, container));
    if (kind < 26) return step('CHECK', container, () => operations.check(host, container));
    if (kind < 40) {
      const how = random.pick(CHANGES);
      return step(`CHECK ${how}`, container, () => operations.checkChanged(host, container, how));
    }
    if (kind < 46) return step('namespace deleted without DEL', container, () => operations.lose(container));
    if (kind < 54) {
      const damage = random.pick(DAMAGE_KINDS);
      return step(`CHECK and ADD ${damage}`, container, () => operations.repair(host, container, damage));
    }
    if (kind < 60) return this.#race(container);
    if (kind < 66 && container.ports.length > 0) return this.#conflict(container);
    const way = random.pick(DEL_WAYS);
    const other = others.length === 0 ? undefined : random.pick(others);
    return step(
      `DEL ${way}`,
      container,
      () => operations.del(host, container, way, other),
      other === undefined ? [] : [other],
    );
  }

  #add(): Step {
    const container = newContainer(this.#host, this.#random, this.#random.pick(LIST_NAMES));
    return step(`ADD ${container.list}`, container, () => operations.add(this.#host, container));
  }

  #endOfLost(container: Container): Step {
    if (this.#random.chance(0.5))
      return step('ADD in a new namespace', container, () => operations.add(this.#host, container));
    const way = this.#random.pick(DEL_WAYS);
    return step(`DEL after the namespace was lost, ${way}`, container, () =>
      operations.del(this.#host, container, way),
    );
  }

  #delLate(): Step {
    const container = this.#random.pick(this.#host.deleted);
    const way = this.#random.pick(DEL_WAYS);
    return step(`late DEL ${way}`, container, () => operations.delLate(this.#host, container, way));
  }

  #race(container: Container): Step {
    const verbs = this.#random.pick(RACES);
    const last = this.#random.pick<Verb>(['ADD', 'DEL']);
    return step(`${verbs.join(' and ')} at once, then ${last}`, container, () =>
      operations.race(this.#host, container, verbs, last),
    );
  }

  #conflict(holder: Container): Step {
    const container = newContainer(this.#host, this.#random, 'nomad', holder.ports.slice(0, 1));
    return step(
      `ADD with a port of ${holder.id}`,
      container,
      () => operations.conflict(this.#host, container),
      [holder],
    );
  }

  #collect(): Step {
    return { text: 'GC', run: () => operations.collect(this.#host), uses: this.#all() };
  }
}

function step(
  what: string,
  container: Container,
  run: () => Promise<void>,
  more: readonly Container[] = [],
): Step {
  return { text: `${what} (${container.id.slice(0, 8)})`, run, uses: [container, ...more] };
}
