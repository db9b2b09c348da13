/**
 * npm run bench -- scale [--backends nftables,iptables-nft,iptables-legacy] [--present 1000] [--rounds 40] [--json FILE]
 * What one more allocation of two ports costs on a host with one present and on a host with a thousand, the two turn by turn:
 * medians of each verb, and their ratio. With nftables, ADD and DEL of portmap and of firewall may cost no more than 1.2 times as much,
 * else it ends with 1. The whole chain is reported, too: a bridge of 900 ports floods what each new one announces (docs/operate/performance.md).
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { describeMachine, onOwnHost, resetHost } from './chain/machine.ts';
import { nomadList, withoutNamedBackends, type Backend } from './chain/suites.ts';
import { VERBS, type Verb } from './chain/calls.ts';
import { makeHost } from './scale/hosts.ts';
import { measureInTurns, type Costs } from './scale/measure.ts';

onOwnHost(import.meta.filename, process.argv.slice(2));

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    backends: { type: 'string', default: 'nftables,iptables-nft,iptables-legacy' },
    present: { type: 'string', default: '1000' },
    rounds: { type: 'string', default: '40' },
    json: { type: 'string' },
  },
});
const LIMIT = 1.2;
const SHOWN = ['chain', 'bridge', 'firewall', 'portmap'];

interface Scale {
  readonly backend: Backend;
  readonly present: readonly [number, number];
  readonly few: Costs;
  readonly many: Costs;
  /** Of medians, by verb and plugin. */
  readonly ratios: Readonly<Record<Verb, Readonly<Record<string, number>>>>;
}

const scales = (values.backends.split(',') as Backend[]).map((backend) => measureBackend(backend));
if (values.json !== undefined)
  writeFileSync(
    values.json,
    `${JSON.stringify({ machine: describeMachine(), limit: LIMIT, scales }, null, 1)}\n`,
  );
for (const { ratios } of scales.filter(({ backend }) => backend === 'nftables')) {
  console.log('');
  for (const what of ['portmap', 'firewall', 'chain']) {
    const holds = [ratios.ADD[what], ratios.DEL[what]].every(
      (ratio) => ratio !== undefined && ratio <= LIMIT,
    );
    console.log(
      `nftables, ${what}: ADD and DEL at most ${LIMIT} times: ${holds ? 'holds' : 'DOES NOT HOLD'}`,
    );
    if (!holds && what !== 'chain') process.exitCode = 1;
  }
}

function measureBackend(backend: Backend): Scale {
  resetHost(backend);
  const many = Number(values.present);
  console.log(`\none more allocation of two ports (tcp and udp) on ${backend}; ${describeMachine()}`);
  const list = withoutNamedBackends(nomadList('nomad'));
  const hosts = [makeHost('few', list, 1), makeHost('many', list, many)];
  const [few, crowded] = measureInTurns(hosts, Number(values.rounds));
  if (few === undefined || crowded === undefined) throw new Error('both hosts were measured');
  const ratioOf = (verb: Verb, what: string): number =>
    (crowded[verb][what]?.median ?? Number.NaN) / (few[verb][what]?.median ?? Number.NaN);
  console.log(row('verb', 'what', '1 present', `${many}`, 'ratio'));
  for (const verb of VERBS) {
    for (const what of SHOWN) {
      const [one, other] = [few[verb][what]?.median, crowded[verb][what]?.median];
      console.log(row(verb, what, milliseconds(one), milliseconds(other), ratioOf(verb, what).toFixed(2)));
    }
  }
  const ratiosOf = (verb: Verb): Record<string, number> =>
    Object.fromEntries(SHOWN.map((what) => [what, ratioOf(verb, what)]));
  const ratios = { ADD: ratiosOf('ADD'), CHECK: ratiosOf('CHECK'), DEL: ratiosOf('DEL') };
  return { backend, present: [1, many], few, many: crowded, ratios };
}

function row(...cells: readonly string[]): string {
  return cells.map((cell, at) => (at < 2 ? cell.padEnd(9) : cell.padStart(11))).join(' ');
}

function milliseconds(value: number | undefined): string {
  return value === undefined ? '-' : `${value.toFixed(1)} ms`;
}
