/**
 * npm run bench -- parallel [--backends iptables-nft,iptables-legacy,nftables] [--chains 40] [--rounds 3]
 *                           [--suites weft,agent,reference] [--reference DIR] [--json FILE]
 * Many chains at once on a fresh host, as after a reboot: how long until all are done, how many calls failed, and how many addresses and rules
 * are there twice. Our executables, the node agent and the reference's executables (Debian's, or those of --reference) take turns, each round
 * on a host without any rule or bridge.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { agentCpu, hasLaunchers, startAgent, stopAgent } from './chain/agent.ts';
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
    suites: { type: 'string', default: 'weft,agent,reference' },
    reference: { type: 'string', default: REFERENCE.binDir },
    json: { type: 'string' },
  },
});
const list = nomadList('nomad-tproxy');
const chains = Number(values.chains);
const reference: PluginSuite = { name: 'reference', binDir: resolve(values.reference) };
const hasReference = existsSync(`${reference.binDir}/bridge`);
if (!hasReference) console.log(`${reference.binDir} has no bridge: only our figures`);
/** Of the reference's time, with the agent on iptables-nft. */
const AGENT_LIMIT = 0.3;

/** Milliseconds until the last chain ended, and what went wrong. */
interface Burst {
  readonly add: number;
  readonly del: number;
  /** Milliseconds of processor of all calls, the agent's included. */
  readonly cpu: number;
  readonly failures: number;
  readonly addresses: number;
  readonly rules: number;
}

const rows: { backend: Backend; suite: string; bursts: Burst[] }[] = [];
console.log(`${chains} chains at once on a fresh host; ${describeMachine()}`);
for (const backend of values.backends.split(',') as Backend[]) {
  const compared = hasReference && backend !== 'nftables';
  const suites = [WEFT, ...(hasLaunchers ? [AGENT] : []), ...(compared ? [reference] : [])];
  const wanted = suites.filter(({ name }) => values.suites.split(',').includes(name));
  const measured = wanted.map((suite) => ({ suite, bursts: [] as Burst[] }));
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
process.exitCode = rows.map(verdictOf).every(Boolean) ? 0 : 1;

/** Prints what a suite of ours has to hold. */
function verdictOf({ backend, suite, bursts }: (typeof rows)[number]): boolean {
  if (suite === 'reference') return true;
  const sum = bursts.reduce((total, one) => total + one.failures + one.addresses + one.rules, 0);
  const theirs = rows.find((one) => one.backend === backend && one.suite === 'reference')?.bursts;
  const limit = backend === 'iptables-nft' && suite === 'agent' ? AGENT_LIMIT : Infinity;
  const ratios = (theirs === undefined ? [] : (['add', 'del'] as const)).map(
    (key) => median(bursts, key) / median(theirs ?? [], key),
  );
  const isHeld = sum === 0 && ratios.every((ratio) => ratio <= limit);
  const [added, deleted] = ratios.map((ratio) => ratio.toFixed(2));
  console.log(
    `${isHeld ? 'held  ' : 'MISSED'} ${backend}, ${suite}: ${sum} failures and duplicates (at most 0)` +
      (added === undefined ? '' : `; ours / reference: added ${added}, deleted ${deleted}`) +
      (added === undefined || limit === Infinity ? '' : ` (at most ${limit})`),
  );
  return isHeld;
}

function median(bursts: readonly Burst[], key: 'add' | 'del' | 'cpu'): number {
  return summarise(bursts.map((one) => one[key])).median;
}

async function burst(suite: PluginSuite): Promise<Burst> {
  const allocations: Allocation[] = Array.from({ length: chains }, (_, at) => ({
    id: `burst-${at}`,
    netns: makeNamespace(`burst-${at}`),
    ports: [20_000 + at],
  }));
  const agentBefore = agentCpu();
  const began = process.hrtime.bigint();
  const results = await Promise.allSettled(
    allocations.map((allocation) => startChain(suite, list, 'ADD', allocation)),
  );
  const add = milliseconds(began);
  const rules = duplicateRules();
  const given = results.flatMap((one) => (one.status === 'fulfilled' ? addressesOf(one.value.result) : []));
  const again = process.hrtime.bigint();
  const removed = await Promise.allSettled(
    allocations.map((allocation, at) => {
      const added = results[at];
      const result = added?.status === 'fulfilled' ? added.value.result : undefined;
      return startChain(suite, list, 'DEL', allocation, result);
    }),
  );
  const del = milliseconds(again);
  const calls = [...results, ...removed];
  const failures = calls.filter(({ status }) => status === 'rejected').length;
  const cpu = calls.reduce((total, one) => total + (one.status === 'fulfilled' ? one.value.cpu : 0), 0);
  const addresses = given.length - new Set(given).size;
  return { add, del, cpu: cpu + agentCpu() - agentBefore, failures, addresses, rules };
}

function addressesOf(result: unknown): string[] {
  return (result as { ips: { address: string }[] }).ips.map(({ address }) => address);
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
  const sum = (key: 'failures' | 'addresses' | 'rules'): number =>
    bursts.reduce((total, one) => total + one[key], 0);
  const [add, del, cpu] = (['add', 'del', 'cpu'] as const).map((key) =>
    median(bursts, key).toFixed(0).padStart(6),
  );
  console.log(
    `${backend.padEnd(16)} ${suite.padEnd(10)} all added ${add} ms, all deleted ${del} ms, ${cpu} ms of processor; in ${bursts.length} rounds ` +
      `${sum('failures')} of ${2 * chains * bursts.length} failed, ${sum('addresses')} addresses twice, ${sum('rules')} rules twice`,
  );
}
