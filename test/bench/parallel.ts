/**
 * npm run bench -- parallel [--backends iptables-nft,iptables-legacy,nftables] [--chains 40] [--rounds 3] [--json FILE]
 * Many chains at once on a fresh host, as after a reboot: how long until all are done, how many failed, and how many rules stand there twice.
 * Our executables, the node agent and the reference's executables take turns, each round on a host without any rule or bridge.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { hasLaunchers, startAgent, stopAgent } from './chain/agent.ts';
import type { Allocation } from './chain/calls.ts';
import { makeNamespace } from './chain/crowd.ts';
import { milliseconds, startChain } from './chain/invoke.ts';
import { describeMachine, onOwnHost, resetHost, sh } from './chain/machine.ts';
import { summarise } from './chain/statistics.ts';
import { AGENT, nomadList, REFERENCE, WEFT, type Backend, type PluginSuite } from './chain/suites.ts';

onOwnHost(import.meta.filename, process.argv.slice(2));

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    backends: { type: 'string', default: 'iptables-nft,iptables-legacy,nftables' },
    chains: { type: 'string', default: '40' },
    rounds: { type: 'string', default: '3' },
    json: { type: 'string' },
  },
});
const list = nomadList('nomad-tproxy');
const chains = Number(values.chains);

/** Milliseconds until the last chain ended, and what went wrong. */
interface Burst {
  readonly add: number;
  readonly del: number;
  readonly failures: number;
  readonly duplicates: number;
}

const rows: { backend: Backend; suite: string; bursts: Burst[] }[] = [];
console.log(`${chains} chains at once on a fresh host; ${describeMachine()}`);
for (const backend of values.backends.split(',') as Backend[]) {
  const compared = existsSync(`${REFERENCE.binDir}/bridge`) && backend !== 'nftables';
  const suites = [WEFT, ...(hasLaunchers ? [AGENT] : []), ...(compared ? [REFERENCE] : [])];
  const measured = suites.map((suite) => ({ suite, bursts: [] as Burst[] }));
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const { suite, bursts } of measured) {
      resetHost(backend);
      if (suite === AGENT) startAgent();
      bursts.push(await burst(suite));
      stopAgent();
    }
  }
  for (const { suite, bursts } of measured) {
    rows.push({ backend, suite: suite.name, bursts });
    print(backend, suite.name, bursts);
  }
}
if (values.json !== undefined)
  writeFileSync(values.json, `${JSON.stringify({ machine: describeMachine(), chains, rows }, null, 1)}\n`);
const wrong = rows.filter(
  ({ suite, bursts }) =>
    suite !== 'reference' && bursts.some(({ failures, duplicates }) => failures + duplicates > 0),
);
console.log(
  wrong.length === 0 ? 'held: no failure and no duplicate rule of ours' : 'MISSED: see failed, twice',
);
process.exitCode = wrong.length === 0 ? 0 : 1;

async function burst(suite: PluginSuite): Promise<Burst> {
  const allocations: Allocation[] = Array.from({ length: chains }, (_, at) => ({
    id: `burst-${at}`,
    netns: makeNamespace(`burst-${at}`),
    ports: [20_000 + at],
  }));
  const began = process.hrtime.bigint();
  const results = await Promise.allSettled(
    allocations.map((allocation) => startChain(suite, list, 'ADD', allocation)),
  );
  const add = milliseconds(began);
  const duplicates = duplicateRules();
  const again = process.hrtime.bigint();
  const removed = await Promise.allSettled(
    allocations.map((allocation, at) => {
      const added = results[at];
      const result = added?.status === 'fulfilled' ? added.value : undefined;
      return startChain(suite, list, 'DEL', allocation, result);
    }),
  );
  const failures = [...results, ...removed].filter(({ status }) => status === 'rejected').length;
  return { add, del: milliseconds(again), failures, duplicates };
}

/** Rules that stand more than once in the same chain of the same table. */
function duplicateRules(): number {
  const rules = [
    ...placed(sh('iptables-save'), (line) => line.startsWith('*'), 'ip'),
    ...placed(sh('ip6tables-save'), (line) => line.startsWith('*'), 'ip6'),
    ...placed(sh('nft -s list ruleset inet'), (line) => line.endsWith('{'), 'inet'),
  ];
  return rules.length - new Set(rules).size;
}

/** Each rule behind the last heading before it. */
function placed(text: string, isHeading: (line: string) => boolean, family: string): string[] {
  let heading = '';
  return text.split('\n').flatMap((raw) => {
    const line = raw.trim();
    if (isHeading(line)) heading = line;
    return line.startsWith('-A') || line.includes('comment "') ? [`${family} ${heading} ${line}`] : [];
  });
}

function print(backend: Backend, suite: string, bursts: readonly Burst[]): void {
  const add = summarise(bursts.map((one) => one.add)).median;
  const del = summarise(bursts.map((one) => one.del)).median;
  const sum = (key: 'failures' | 'duplicates'): number => bursts.reduce((total, one) => total + one[key], 0);
  console.log(
    `${backend.padEnd(16)} ${suite.padEnd(10)} all added ${add.toFixed(0).padStart(6)} ms, all deleted ${del.toFixed(0).padStart(6)} ms; ` +
      `in ${bursts.length} rounds ${sum('failures')} of ${2 * chains * bursts.length} failed, ${sum('duplicates')} rules twice`,
  );
}
