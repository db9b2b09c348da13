import { inNamespace } from '../../../shared/kernel/namespace.ts';
import { dropNamespace, makeNamespace } from '../chain/crowd.ts';
import { summarise, type Summary } from '../chain/statistics.ts';
import { WEFT } from '../chain/suites.ts';
import { VERBS, type Allocation, type Verb } from '../chain/calls.ts';
import { runChain, type ChainTimes } from '../chain/invoke.ts';
import type { Host } from './hosts.ts';

/** What one more allocation costs on a host, by verb and by plugin (`chain`: all of them). */
export type Costs = Readonly<Record<Verb, Readonly<Record<string, Summary>>>>;

/** Hosts take turns, and so does who is first; the first round warms up and is dropped. @returns in the hosts' order */
export function measureInTurns(hosts: readonly Host[], rounds: number): Costs[] {
  const samples = hosts.map(() => new Samples());
  for (let round = 0; round <= rounds; round++) {
    const order = [...hosts.keys()];
    for (const at of round % 2 === 0 ? order : order.reverse()) {
      const [host, kept] = [hosts[at], round === 0 ? new Samples() : samples[at]];
      if (host !== undefined && kept !== undefined) oneMore(host, `measured-${at}-${round}`, kept);
    }
  }
  return samples.map((one) => one.costs());
}

/** Ports that no allocation of the crowd has. */
const PORTS = [9_002, 9_003];

function oneMore({ netns, list }: Host, id: string, samples: Samples): void {
  const allocation: Allocation = { id, netns: makeNamespace(id), ports: PORTS };
  try {
    // Programs that are started from here are on that host, too.
    inNamespace(netns, () => {
      let result: unknown;
      for (const verb of VERBS) {
        const outcome = runChain(WEFT, list, verb, allocation, result);
        result = outcome.result;
        samples.note(verb, outcome.times);
      }
    });
  } finally {
    dropNamespace(id);
  }
}

class Samples {
  readonly #all = new Map<Verb, Map<string, number[]>>(VERBS.map((verb) => [verb, new Map()]));

  note(verb: Verb, { plugins, total }: ChainTimes): void {
    for (const [what, took] of [...plugins, ['chain', total] as const]) {
      const list = this.#all.get(verb)?.get(what) ?? [];
      this.#all.get(verb)?.set(what, [...list, took]);
    }
  }

  costs(): Costs {
    const of = (verb: Verb): Record<string, Summary> =>
      Object.fromEntries([...(this.#all.get(verb) ?? [])].map(([what, list]) => [what, summarise(list)]));
    return { ADD: of('ADD'), CHECK: of('CHECK'), DEL: of('DEL') };
  }
}
