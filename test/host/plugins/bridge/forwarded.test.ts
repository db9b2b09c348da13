import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { cleanHost, DUAL, ipam, makeNamespace, network, sh, startHelper } from './host.ts';
import { makeWorld } from './world.ts';

const test = suite('bridge: what the host forwards to a container', { limit: 120 });
test.beforeEach(cleanHost);
test.after(cleanHost);

/** While the bridge's own IPv6 address is in duplicate address detection the host asks for no neighbour: 1.0 to 2.1 s. */
const LIMIT_MS = 300;
const ROUNDS = 5;

test(`the first container of a bridge answers the world within ${LIMIT_MS} ms of its ADD, before it has sent anything`, async () => {
  const slowest: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    cleanHost();
    slowest.push(await slowestAnswer());
  }
  const told = `slowest answers of ${ROUNDS} rounds in ms: ${slowest.join(', ')}`;
  slowest.sort((one, other) => one - other);
  // A round may be slow because the machine is; with detection on, each one takes a second at least.
  assert.ok((slowest[Math.floor(ROUNDS / 2)] ?? Infinity) <= LIMIT_MS, told);
});

async function slowestAnswer(): Promise<number> {
  await makeWorld();
  sh('ip -n world route add 10.88.0.0/16 via 192.0.2.1; ip -n world route add fd00:88::/64 via 2001:db8::1');
  const netns = makeNamespace('first');
  await startHelper('echo.ts', 'first');
  const world = await startHelper('probe.ts', 'world');
  const config = network({ ipam: ipam(DUAL) });
  const { ips } = succeed('bridge', 'ADD', { id: 'first', netns }, config) as CniResult;
  const addresses = ips.map(({ address }) => address.replace(/\/\d+$/, ''));
  const answers = await Promise.all(addresses.map((address) => world.ask(`${address} 10000`)));
  return Math.max(...answers.map((answer) => (answer === 'none' ? Infinity : Number(answer.split(' ')[0]))));
}

test.run();
