/**
 * npm run bench -- data-plane [--backends iptables-nft,iptables-legacy,nftables] [--mappings 1,5000] [--rounds 10]
 *                             [--connections 2000] [--json FILE]
 * How fast connections are set up through a mapped port, from outside of the host, with few and with many other mappings on it. The measured
 * mapping is the youngest. Scenes take turns, round by round. On iptables both suites write the same chains: one jump per
 * mapping, tried one after the other.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { describeMachine, onOwnHost, resetHost } from './chain/machine.ts';
import { summarise, type Summary } from './chain/statistics.ts';
import { nomadList, REFERENCE, WEFT, type Backend } from './chain/suites.ts';
import { makeScene, type Scene } from './data-plane/scene.ts';

onOwnHost(import.meta.filename, process.argv.slice(2));

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    backends: { type: 'string', default: 'iptables-nft,iptables-legacy,nftables' },
    mappings: { type: 'string', default: '1,5000' },
    rounds: { type: 'string', default: '10' },
    connections: { type: 'string', default: '2000' },
    json: { type: 'string' },
  },
});
const list = nomadList('nomad');

interface Row {
  readonly backend: Backend;
  readonly suite: string;
  readonly mappings: number;
  /** Microseconds per connection. */
  readonly connection: Summary;
}

const rows: Row[] = [];
console.log(`TCP connections through a mapped port, one after the other; ${describeMachine()}`);
for (const backend of values.backends.split(',') as Backend[]) rows.push(...(await benchBackend(backend)));
if (values.json !== undefined)
  writeFileSync(values.json, `${JSON.stringify({ machine: describeMachine(), rows }, null, 1)}\n`);

async function benchBackend(backend: Backend): Promise<Row[]> {
  resetHost(backend);
  const compared = existsSync(`${REFERENCE.binDir}/portmap`) && backend !== 'nftables';
  const scenes: { scene: Scene; times: number[] }[] = [];
  for (const suite of compared ? [WEFT, REFERENCE] : [WEFT]) {
    for (const mappings of values.mappings.split(',').map(Number))
      scenes.push({ scene: await makeScene(suite, list, backend, mappings), times: [] });
  }
  for (let round = 0; round <= Number(values.rounds); round++) {
    for (const { scene, times } of scenes) {
      const took = scene.connect(Number(values.connections));
      // The first round warms up.
      if (round > 0) times.push(took);
    }
  }
  for (const { scene } of scenes) scene.close();
  const measured = scenes.map(({ scene: { suite, mappings }, times }) => ({
    backend,
    suite,
    mappings,
    connection: summarise(times),
  }));
  measured.forEach((row) => print(row, measured));
  return measured;
}

function print({ backend, suite, mappings, connection }: Row, all: readonly Row[]): void {
  const first = all.find((one) => one.suite === suite)?.connection.median ?? Number.NaN;
  const rate = 1e6 / connection.median;
  console.log(
    `${backend.padEnd(16)} ${suite.padEnd(10)} ${String(mappings).padStart(6)} mappings: ${connection.median.toFixed(1).padStart(7)} µs ` +
      `(p95 ${connection.p95.toFixed(1)}), ${rate.toFixed(0).padStart(6)} connections/s, ` +
      `${(connection.median / first).toFixed(2)} times its first line`,
  );
}
