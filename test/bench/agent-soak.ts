/**
 * npm run bench -- agent-soak [--calls 100000] [--backend iptables-nft|iptables-legacy|nftables]
 * Whole chains of Nomad's transparent-proxy list through the launchers and one node agent: ADD, CHECK and DEL of up to eight allocations in
 * random order. Fails when a call fails, when the agent's memory or descriptors grow, or when something is left at the end.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Random } from '../support/random.ts';
import { agentDescriptors, agentMemory, startAgent, stopAgent } from './chain/agent.ts';
import type { Allocation } from './chain/calls.ts';
import { makeNamespace } from './chain/crowd.ts';
import { runChain } from './chain/invoke.ts';
import { onOwnHost, resetHost } from './chain/machine.ts';
import { AGENT, nomadList, withoutNamedBackends, type Backend } from './chain/suites.ts';

onOwnHost(import.meta.filename, process.argv.slice(2));

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    calls: { type: 'string', default: '100000' },
    backend: { type: 'string', default: 'iptables-nft' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
  },
});
const backend = values.backend as Backend;
const wanted = Number(values.calls);
const random = new Random(Number(values.seed));
const MOST_MEMORY_MIB = 100;
/** Of the agent's own memory after a tenth of the calls: it may not grow beyond it later. */
const GROWTH = 1.2;

resetHost(backend);
startAgent();
const list =
  backend === 'nftables' ? withoutNamedBackends(nomadList('nomad-tproxy')) : nomadList('nomad-tproxy');
const allocations = Array.from({ length: 8 }, (_, at): Allocation & { result?: unknown } => ({
  id: `soak-${at}`,
  netns: makeNamespace(`soak-${at}`),
  ports: [21_000 + at],
}));
const rulesBefore = rules();
let calls = 0;
let baseline: { own: number; descriptors: number } | undefined;
for (let reported = 0; calls < wanted;) {
  const at = random.below(allocations.length);
  step(at, random.pick(['ADD', 'ADD', 'CHECK', 'DEL']));
  if (calls >= wanted / 10) baseline ??= { own: agentMemory().own, descriptors: idleDescriptors() };
  if (calls - reported >= wanted / 20) {
    reported = calls;
    const { resident, own } = agentMemory();
    console.log(`${calls} calls: ${resident.toFixed(0)} MiB resident, ${own.toFixed(0)} own`);
  }
}
for (const at of allocations.keys()) step(at, 'DEL');
report();
stopAgent();

function step(at: number, verb: 'ADD' | 'CHECK' | 'DEL'): void {
  const allocation = allocations[at];
  if (allocation === undefined || (verb === 'CHECK' && allocation.result === undefined)) return;
  const { times, result } = runChain(AGENT, list, verb, allocation, allocation.result);
  allocations[at] = { ...allocation, result: verb === 'DEL' ? undefined : result };
  calls += times.plugins.size;
}

/** After the postponed closes, which a busy machine delays. */
function idleDescriptors(): number {
  const counts = Array.from({ length: 10 }, () => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
    return agentDescriptors();
  });
  return Math.min(...counts);
}

function rules(): number {
  return execFileSync('nft', ['list', 'ruleset'], { encoding: 'utf8' }).match(/soak-\d/g)?.length ?? 0;
}

function report(): void {
  const descriptors = idleDescriptors();
  const { resident, own } = agentMemory();
  const leases = readdirSync('/run/cni/nomad').filter((name) => /^[0-9a-f]+[.:]/.test(name));
  const links = execFileSync('ip', ['-o', 'link', 'show', 'type', 'veth'], { encoding: 'utf8' });
  const checks = [
    [`own memory ${own.toFixed(0)} MiB, at most ${MOST_MEMORY_MIB}`, own <= MOST_MEMORY_MIB],
    [`own memory after a tenth ${baseline?.own.toFixed(0)} MiB`, own <= (baseline?.own ?? 0) * GROWTH],
    [
      `descriptors ${descriptors}, were ${baseline?.descriptors}`,
      descriptors <= (baseline?.descriptors ?? 0),
    ],
    [`leases left: ${leases.length}`, leases.length === 0],
    [`interfaces left: ${links.split('\n').length - 1}`, links === ''],
    [`rules left: ${rules() - rulesBefore}`, rules() === rulesBefore],
  ] as const;
  console.log(`\n${calls} calls on ${backend}, seed ${values.seed}; ${resident.toFixed(0)} MiB resident`);
  for (const [what, holds] of checks) console.log(`  ${holds ? 'held  ' : 'MISSED'} ${what}`);
  if (!checks.every(([, holds]) => holds)) process.exitCode = 1;
}
