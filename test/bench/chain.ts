/**
 * npm run bench -- chain [--backends iptables-nft,iptables-legacy,nftables] [--sizes 1,100,300,1000,5000] [--list nomad-tproxy]
 *                        [--rounds 12] [--json FILE] [--svg FILE]
 * Whole chains as Nomad runs them, our executables and the reference's turn by turn, with more and more allocations present.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { growCrowd, type CrowdMember } from './chain/crowd.ts';
import { describeMachine, onOwnHost, resetHost } from './chain/machine.ts';
import { measure, type Measurement } from './chain/measure.ts';
import { plot } from './chain/plot.ts';
import { printHeader, printRow, printRatios } from './chain/report.ts';
import { nomadList, REFERENCE, WEFT, type Backend } from './chain/suites.ts';

onOwnHost(import.meta.filename, process.argv.slice(2));

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    backends: { type: 'string', default: 'iptables-nft,iptables-legacy,nftables' },
    sizes: { type: 'string', default: '1,100,300,1000' },
    list: { type: 'string', default: 'nomad-tproxy' },
    rounds: { type: 'string', default: '12' },
    json: { type: 'string' },
    svg: { type: 'string' },
  },
});
const list = nomadList(values.list as 'nomad-tproxy');
const sizes = values.sizes.split(',').map(Number);
const reference = existsSync(`${REFERENCE.binDir}/bridge`) ? [REFERENCE] : [];
if (reference.length === 0)
  console.log('the reference is absent (apt-get install containernetworking-plugins): only our figures');

const measurements: Measurement[] = [];
for (const backend of values.backends.split(',') as Backend[]) {
  resetHost(backend);
  console.log(`\n${values.list} on ${backend}; ${describeMachine()}`);
  printHeader();
  let crowd: CrowdMember[] = [];
  for (const size of sizes) {
    crowd = growCrowd(list, crowd, size - 1);
    // The reference needs more than half a second per chain with a thousand present; its own figures say how it goes on.
    const suites = [WEFT, ...(size > 1000 || backend === 'nftables' ? [] : reference)];
    const rows = measure({
      backend,
      list,
      present: size,
      suites,
      rounds: size > 300 ? Math.ceil(Number(values.rounds) / 2) : Number(values.rounds),
    });
    for (const row of rows) printRow(row);
    measurements.push(...rows);
  }
}
printRatios(measurements);
if (values.json !== undefined)
  writeFileSync(
    values.json,
    `${JSON.stringify({ machine: describeMachine(), list: values.list, measurements }, null, 1)}\n`,
  );
if (values.svg !== undefined)
  writeFileSync(values.svg, plot(measurements, `${values.list}, ADD; ${describeMachine()}`));
