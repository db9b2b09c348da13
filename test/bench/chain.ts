/**
 * npm run bench -- chain [--backends iptables-nft,iptables-legacy,nftables] [--sizes 1,100,300,1000,5000] [--rounds 12]
 *                        [--lists nomad-tproxy,nomad,nomad-dual-stack,nomad-hairpin] [--reference DIR] [--load N] [--json FILE] [--svg FILE]
 * Whole chains as Nomad runs them, turn by turn: our executables, our launchers with a node agent, and the reference's executables (Debian's, or
 * newer ones of --reference DIR, best with a real consul-cni in it), with more and more allocations present.
 * --load N: beside N busy loops, as on a host whose processors are taken. The figures to hold are those of a quiet host and not judged then.
 * The first list is measured at every size (on iptables-legacy up to 1,000), the others, which differ by a plugin, a family or a flag, with up to 100.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { agentMemory, hasLaunchers, startAgent, stopAgent } from './chain/agent.ts';
import { growCrowd, type CrowdMember } from './chain/crowd.ts';
import { describeMachine, onOwnHost, resetHost } from './chain/machine.ts';
import { measure, type Measurement } from './chain/measure.ts';
import { plot } from './chain/plot.ts';
import { printHeader, printRow, printRatios } from './chain/report.ts';
import {
  nomadList,
  AGENT,
  REFERENCE,
  WEFT,
  withoutNamedBackends,
  type Backend,
  type ListName,
  type PluginSuite,
} from './chain/suites.ts';
import { printVerdicts, verdicts } from './chain/targets.ts';

onOwnHost(import.meta.filename, process.argv.slice(2));

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    backends: { type: 'string', default: 'iptables-nft,iptables-legacy,nftables' },
    sizes: { type: 'string', default: '1,100,300,1000,5000' },
    lists: { type: 'string', default: 'nomad-tproxy,nomad,nomad-dual-stack,nomad-hairpin' },
    rounds: { type: 'string', default: '12' },
    reference: { type: 'string', default: REFERENCE.binDir },
    load: { type: 'string', default: '0' },
    json: { type: 'string' },
    svg: { type: 'string' },
  },
});
/** The reference needs most of a second per chain with a thousand present; its own figures say how it goes on. */
const MOST_FOR_REFERENCE = 1000;
/** A table of iptables-legacy is exchanged as a whole. */
const MOST_FOR_LEGACY = 1000;
const MOST_FOR_OTHER_LISTS = 100;

const load = Number(values.load);
const machine = `${describeMachine()}${load === 0 ? '' : `, beside ${load} busy loops`}`;
const backends = values.backends.split(',') as Backend[];
const lists = values.lists.split(',') as ListName[];
const reference: PluginSuite = { name: 'reference', binDir: resolve(values.reference) };
const hasReference = existsSync(`${reference.binDir}/bridge`);
if (!hasReference)
  console.log('the reference is absent (apt-get install containernetworking-plugins): only our figures');

const results = lists.map((name, at) => ({ list: name, measurements: benchList(name, at === 0) }));
const main = results[0]?.measurements ?? [];
if (values.json !== undefined)
  writeFileSync(values.json, `${JSON.stringify({ machine, results }, null, 1)}\n`);
if (values.svg !== undefined) writeFileSync(values.svg, plot(main, `${lists[0] ?? ''} on ${machine}`));
if (load === 0) process.exitCode = printVerdicts(verdicts(main)) ? 0 : 1;

function benchList(name: ListName, first: boolean): Measurement[] {
  const sizes = values.sizes.split(',').map(Number);
  return backends.flatMap((backend) => {
    const most = backend === 'iptables-legacy' ? MOST_FOR_LEGACY : Number.POSITIVE_INFINITY;
    const limit = first ? most : MOST_FOR_OTHER_LISTS;
    return benchBackend(
      name,
      backend,
      sizes.filter((size) => size <= limit),
    );
  });
}

function benchBackend(name: ListName, backend: Backend, sizes: readonly number[]): Measurement[] {
  stopAgent();
  resetHost(backend);
  if (hasLaunchers) startAgent();
  console.log(`\n${name} on ${backend}; ${machine}; medians in ms`);
  printHeader();
  const list = backend === 'nftables' ? withoutNamedBackends(nomadList(name)) : nomadList(name);
  let crowd: CrowdMember[] = [];
  const measurements = sizes.flatMap((present) => {
    crowd = growCrowd(list, crowd, present - 1);
    // The reference has no nftables firewall and Debian's no nftables portmap: nothing to compare that backend with.
    const compared = hasReference && present <= MOST_FOR_REFERENCE && backend !== 'nftables';
    const ours = hasLaunchers ? [WEFT, AGENT] : [WEFT];
    const suites = compared ? [...ours, reference] : ours;
    const rounds = present > 300 ? Math.ceil(Number(values.rounds) / 2) : Number(values.rounds);
    const loops = startLoops();
    const rows = measure({ backend, list, present, suites, rounds });
    loops.forEach((loop) => loop.kill('SIGKILL'));
    rows.forEach(printRow);
    return rows;
  });
  printRatios(measurements);
  if (hasLaunchers) {
    const { resident, own } = agentMemory();
    console.log(`memory of the agent: ${resident.toFixed(0)} MiB, ${own.toFixed(0)} of it its own`);
  }
  stopAgent();
  return measurements;
}

/** They end with this process's pid namespace at the latest. */
function startLoops(): ChildProcess[] {
  return Array.from({ length: load }, () => spawn('sh', ['-c', 'while :; do :; done'], { stdio: 'ignore' }));
}
