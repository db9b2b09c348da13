/**
 * npm run bench -- repair [--backends iptables-nft,nftables] [--sizes 100,1000] [--rounds 5] [--seconds 120] [--idle-seconds 600]
 * The node agent beside running allocations: how long one repair takes after all rules were deleted, and until the rules are back; the
 * processor's share that the idle agent uses, and what it uses while another program commits a hundred rule changes a second: in a table
 * of its own, in a chain of its own in iptables' table filter, and beside the suite's rule in chain FORWARD. Ends with 1 if a target is missed.
 */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { parseNetworkList } from '../../conflist/network-list.ts';
import { DEFAULT_CACHE_DIR, writeCachedResult } from '../../conflist/result-cache.ts';
import { parseResult } from '../../shared/cni/results.ts';
import { changeNft } from '../../shared/packetfilter/nftables/change.ts';
import { addChain, addTable, flushChain, ruleRequest } from '../../shared/packetfilter/nftables/messages.ts';
import type { NftChain } from '../../shared/packetfilter/nftables/model.ts';
import { agentCpu, startAgent, stopAgent } from './chain/agent.ts';
import { portMappings, type Allocation } from './chain/calls.ts';
import { growCrowd } from './chain/crowd.ts';
import { describeMachine, onOwnHost, resetHost, sh } from './chain/machine.ts';
import { nomadList, withoutNamedBackends, type Backend, type List } from './chain/suites.ts';

onOwnHost(import.meta.filename, process.argv.slice(2));

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    backends: { type: 'string', default: 'iptables-nft,nftables' },
    sizes: { type: 'string', default: '100,1000' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '120' },
    'idle-seconds': { type: 'string' },
  },
});
const LOG = '/run/repair-agent.log';
const seconds = Number(values.seconds);
const idleSeconds = Number(values['idle-seconds'] ?? seconds);
const IDLE_PERCENT = 0.1;
const BUSY_PERCENT = 5;
/** One allocation may take 1 ms; below a hundred, other work counts. */
const repairTarget = (size: number): number => Math.max(100, size);

const FLUSH = 'nft flush ruleset';
const FLUSH_LEGACY = ['iptables', 'ip6tables'].map((tool) => `${tool} -F; ${tool} -t nat -F`).join('; ');
const COMMENT = 'of another program';
/** One commit of another program. */
const OTHERS: Readonly<Record<string, () => void>> = {
  'another table': () => rewrite({ table: { family: 'inet', name: 'other' }, name: 'input' }),
  'table ip filter': () => rewrite({ table: { family: 'ip', name: 'filter' }, name: 'OTHER' }),
  'chain FORWARD of table ip filter': () =>
    addOrDelete({ table: { family: 'ip', name: 'filter' }, name: 'FORWARD' }),
};

console.log(`repair by the node agent; ${describeMachine()}`);
for (const backend of values.backends.split(',') as Backend[])
  for (const size of values.sizes.split(',').map(Number)) await measure(backend, size);

async function measure(backend: Backend, size: number): Promise<void> {
  resetHost(backend);
  growCrowd(withoutNamedBackends(nomadList('nomad')), [], size, cacheResult);
  const log = openSync(LOG, 'w');
  startAgent(log);
  closeSync(log);
  try {
    await settled(size);
    console.log(`\n${backend}, ${size} allocations of two ports`);
    const repairs: Repair[] = [];
    for (let round = 0; round < Number(values.rounds); round++) repairs.push(await flushAndRepair(backend));
    const of = (figure: keyof Repair): number[] => repairs.map((repair) => repair[figure]);
    print('repair, ms', of('repair'), repairTarget(size));
    print('rules are back, ms', of('restored'), backend === 'iptables-legacy' ? 35_000 : 2_000);
    print('processor time of the agent meanwhile, ms', of('cpu'));
    print(`idle for ${idleSeconds} s, % of a processor`, [await share(idleSeconds)], IDLE_PERCENT);
    for (const [what, commit] of Object.entries(OTHERS)) {
      const writer = setInterval(commit, 10);
      print(`100 commits a second in ${what}, %`, [await share(seconds)], BUSY_PERCENT);
      clearInterval(writer);
    }
  } catch (thrown) {
    throw new Error(`the agent's log: ${readFileSync(LOG, 'utf8')}`, { cause: thrown });
  } finally {
    stopAgent();
  }
}

/** Deletes a rule and adds it again in one commit. */
function rewrite(chain: NftChain): void {
  changeNft({ what: 'change other rules' }, () => [
    addTable(chain.table),
    addChain(chain),
    flushChain(chain),
    ruleRequest({ chain, statements: [{ kind: 'return' }] }),
  ]);
}

/** Adds a rule, or deletes it. */
function addOrDelete(chain: NftChain): void {
  changeNft({ what: 'change other rules' }, (reader) => {
    const [present] = reader.rulesCommented(chain, COMMENT);
    if (present !== undefined) return [present.deletion()];
    return [
      addTable(chain.table),
      addChain(chain),
      ruleRequest({ chain, statements: [{ kind: 'return' }], comment: COMMENT }),
    ];
  });
}

interface Repair {
  /** Milliseconds as the agent logs them. */
  readonly repair: number;
  /** From the deletion of the rules to the end of the repair. */
  readonly restored: number;
  readonly cpu: number;
}

async function flushAndRepair(backend: Backend): Promise<Repair> {
  const before = repairsLogged().length;
  const cpuBefore = agentCpu();
  sh(backend === 'iptables-legacy' ? FLUSH_LEGACY : FLUSH);
  const began = performance.now();
  while (repairsLogged().length === before) {
    if (performance.now() - began > 60_000) throw new Error('no repair within a minute');
    await pause(5);
  }
  const restored = performance.now() - began;
  const cpu = agentCpu() - cpuBefore;
  await settled(0);
  return { repair: Math.max(...repairsLogged().slice(before)), restored, cpu };
}

function repairsLogged(): number[] {
  return [...readFileSync(LOG, 'utf8').matchAll(/^repair: restored=.* ms=(\d+)/gm)].map(([, ms]) =>
    Number(ms),
  );
}

/** After the second look, and not so often that repair pauses. The first look of an agent takes longer. */
async function settled(size: number): Promise<void> {
  await pause(8_000 + 10 * size);
}

/** Per cent of a processor that the agent uses. */
async function share(forSeconds: number): Promise<number> {
  const milliseconds = forSeconds * 1000;
  const before = agentCpu();
  await pause(milliseconds);
  return (100 * (agentCpu() - before)) / milliseconds;
}

function print(what: string, figures: readonly number[], target = Infinity): void {
  const isHeld = figures.every((figure) => figure <= target);
  if (!isHeld) process.exitCode = 1;
  const shown = figures.map((figure) => figure.toFixed(figure < 10 ? 2 : 0)).join(' ');
  const [verdict, limit] =
    target === Infinity ? ['      ', ''] : [isHeld ? 'held  ' : 'MISSED', ` (at most ${target})`];
  console.log(`  ${verdict} ${what}: ${shown}${limit}`);
}

/** As a runtime does after ADD. */
function cacheResult(list: List, allocation: Allocation, result: unknown): void {
  const parsed = parseNetworkList(JSON.stringify(list), 'the list of the benchmark');
  const attachment = {
    containerId: allocation.id,
    netns: allocation.netns,
    ifname: 'eth0',
    args: [],
    capabilityArgs: { portMappings: portMappings(allocation) },
  };
  writeCachedResult(DEFAULT_CACHE_DIR, parsed, attachment, parseResult(parsed.cniVersion, result));
}
