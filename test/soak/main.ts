/**
 * npm run soak [-- --ops 500] [--seconds N] [--seed S] [--backend iptables-nft,iptables-legacy,nftables] [--parallel 24] [--bin dist/agent | --bin dist/bin]
 * Random operations on Nomad's four lists against a model, each back end on a private host. Prints the seed; a failure names it again, with
 * the operations before it and the first difference. With more than one at once, the order of system calls is not repeated by the seed.
 */
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { manyCallsBin } from '../support/executables.ts';
import { agentFor, runOnOwnHost } from '../support/own-host.ts';
import { learnHost } from './learn.ts';
import { soak } from './soak.ts';
import { BACKENDS, makeWorld, stopWorld, type Backend } from './world.ts';

const { values } = parseArgs({
  options: {
    ops: { type: 'string', default: '500' },
    seconds: { type: 'string', default: 'Infinity' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000_007) },
    backend: { type: 'string', default: BACKENDS.join() },
    parallel: { type: 'string', default: '24' },
    bin: { type: 'string', default: manyCallsBin() },
    'on-own-host': { type: 'boolean', default: false },
  },
});
const backends = values.backend.split(',').map((name) => {
  const backend = BACKENDS.find((one) => one === name);
  if (backend === undefined) throw new TypeError(`--backend: expected ${BACKENDS.join(', ')}, got "${name}"`);
  return backend;
});

if (values['on-own-host']) await here(backends[0] ?? 'iptables-nft');
else for (const backend of backends) elsewhere(backend);

function elsewhere(backend: Backend): void {
  console.log(`${backend}: ${values.ops} operations, seed ${values.seed}`);
  const { ops, seconds, seed, parallel } = values;
  const bin = resolve(values.bin);
  const env = { WEFT_BIN: bin, ...agentFor(bin) };
  const options = { ops, seconds, seed, parallel, backend };
  const args = Object.entries(options).flatMap(([key, value]) => [`--${key}`, value]);
  if (runOnOwnHost(import.meta.filename, [...args, '--on-own-host'], env) !== 0) process.exitCode = 1;
}

async function here(backend: Backend): Promise<void> {
  const { ops, seconds, seed, parallel } = values;
  const world = await makeWorld(backend);
  const began = Date.now();
  try {
    const done = await soak(await learnHost(world), {
      ...{
        backend,
        seed: Number(seed),
        ops: Number(ops),
        seconds: Number(seconds),
        parallel: Number(parallel),
      },
      log: (line) => console.log(line),
    });
    console.log(`${backend}: held for ${done} operations in ${((Date.now() - began) / 1000).toFixed(0)} s`);
  } catch (thrown) {
    console.log(`${backend}: FAILED: ${(thrown as Error).message}`);
    process.exitCode = 1;
  } finally {
    stopWorld(world);
  }
}
