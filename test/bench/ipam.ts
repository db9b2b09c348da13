/**
 * npm run bench -- ipam [--sizes 10,1000,10000] [--rounds 300] [--runs 20] [--data-dir FOLDER]
 * What ADD and DEL of host-local cost with more and more leases present: the allocator in process, our executable and the
 * reference's, turn by turn and each on a store of its own; and ours right after the reference changed the same store.
 * Stores are on tmpfs, as Nomad's are, unless --data-dir names a folder on a disk.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { requireSettings } from '../../shared/config/decode.ts';
import { configureIpam } from '../../shared/ipam/config.ts';
import { ipamAdd, ipamDel, type IpamCall } from '../../shared/ipam/ipam.ts';
import { binDir } from '../support/executables.ts';
import { describeMachine, onOwnHost } from './chain/machine.ts';

onOwnHost(import.meta.filename, process.argv.slice(2));

const REFERENCE = '/usr/lib/cni';
const SUBNET = '10.0.0.0/16';

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    sizes: { type: 'string', default: '10,1000,10000' },
    rounds: { type: 'string', default: '300' },
    runs: { type: 'string', default: '20' },
    'data-dir': { type: 'string', default: '/run' },
  },
});

console.log(`host-local with leases present, store in ${values['data-dir']}; ${describeMachine()}`);
console.log(
  `${'leases'.padStart(7)}  ${'what'.padEnd(44)}  ${'ADD median'.padStart(11)}  ${'least'.padStart(9)}  ${'DEL median'.padStart(11)}  ${'least'.padStart(9)}`,
);
for (const size of values.sizes.split(',').map(Number)) {
  const root = mkdtempSync(`${values['data-dir']}/weft-bench-`);
  try {
    benchSize(size, root);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

function benchSize(size: number, root: string): void {
  const [own, theirs, shared] = ['own', 'theirs', 'shared'].map((name) =>
    populate(`${root}/${name}`, size),
  ) as [string, string, string];
  const rounds = Number(values.rounds);
  const runs = Number(values.runs);
  report(
    size,
    'in process',
    measure(rounds, (verb, id) => inProcess(verb, own, id)),
  );
  if (!existsSync(`${binDir}/host-local`)) {
    console.log(`         no executables in ${binDir}: node build.mjs`);
    return;
  }
  const hasReference = existsSync(`${REFERENCE}/host-local`);
  const ours: Times = { ADD: [], DEL: [] };
  const reference: Times = { ADD: [], DEL: [] };
  for (let run = 0; run < runs; run++) {
    append(
      ours,
      measure(1, (verb, id) => execute(binDir, verb, own, id)),
    );
    if (hasReference)
      append(
        reference,
        measure(1, (verb, id) => execute(REFERENCE, verb, theirs, id)),
      );
  }
  report(size, 'executable', ours);
  if (!hasReference) {
    console.log('         the reference is absent: apt-get install containernetworking-plugins');
    return;
  }
  report(size, 'reference', reference);
  report(
    size,
    'in process, the reference in between',
    measure(Math.min(rounds, 20), (verb, id) => {
      execute(REFERENCE, 'ADD', shared, 'between');
      execute(REFERENCE, 'DEL', shared, 'between');
      return inProcess(verb, shared, id);
    }),
  );
}

type Verb = 'ADD' | 'DEL';
/** Milliseconds of each call. */
type Times = Record<Verb, number[]>;

function measure(rounds: number, run: (verb: Verb, id: string) => number): Times {
  const times: Times = { ADD: [], DEL: [] };
  for (let round = 0; round < rounds; round++) {
    times.ADD.push(run('ADD', `bench${round}`));
    times.DEL.push(run('DEL', `bench${round}`));
  }
  return times;
}

function append(all: Times, more: Times): void {
  all.ADD.push(...more.ADD);
  all.DEL.push(...more.DEL);
}

/** A store with so many leases, as the reference leaves it. */
function populate(dataDir: string, size: number): string {
  const store = `${dataDir}/net`;
  mkdirSync(store, { recursive: true });
  const name = (at: number): string => `10.0.${at >> 8}.${at & 255}`;
  for (let at = 2; at < size + 2; at++)
    writeFileSync(`${store}/${name(at)}`, `b9cb6fb5-bc8a-c3a1-6ff9-${String(at).padStart(12, '0')}\r\neth0`, {
      mode: 0o600,
    });
  writeFileSync(`${store}/last_reserved_ip.0`, name(size + 1), { mode: 0o600 });
  return dataDir;
}

function inProcess(verb: Verb, dataDir: string, id: string): number {
  const call: IpamCall = {
    containerId: id,
    ifname: 'eth0',
    environment: {},
    network: 'net',
    cniVersion: '0.4.0',
    config: requireSettings(
      'host-local',
      configureIpam({ ipam: { dataDir, ranges: [[{ subnet: SUBNET }]] } }),
    ),
    prevResult: undefined,
    validAttachments: undefined,
    warn: () => undefined,
  };
  return timed(() => {
    if (verb === 'ADD') ipamAdd(call);
    else ipamDel(call);
  });
}

function execute(folder: string, verb: Verb, dataDir: string, id: string): number {
  const input = JSON.stringify({
    cniVersion: '0.4.0',
    name: 'net',
    type: 'host-local',
    ipam: { type: 'host-local', dataDir, ranges: [[{ subnet: SUBNET }]] },
  });
  const env = {
    CNI_COMMAND: verb,
    CNI_CONTAINERID: id,
    CNI_NETNS: '/none',
    CNI_IFNAME: 'eth0',
    CNI_PATH: folder,
  };
  return timed(() => {
    const { status, stdout } = spawnSync(`${folder}/host-local`, { env, input, encoding: 'utf8' });
    if (status !== 0) throw new Error(`${folder}/host-local ${verb}: ${stdout}`);
  });
}

function timed(work: () => void): number {
  const began = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - began) / 1e6;
}

function report(size: number, what: string, { ADD, DEL }: Times): void {
  const cells = [ADD, DEL]
    .flatMap((times) => [quantile(times, 0.5), quantile(times, 0)])
    .map((time) => `${time.toFixed(2)} ms`);
  console.log(
    `${String(size).padStart(7)}  ${what.padEnd(44)}  ${cells.map((cell, at) => cell.padStart(at % 2 === 0 ? 11 : 9)).join('  ')}`,
  );
}

function quantile(times: readonly number[], share: number): number {
  const sorted = [...times].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
