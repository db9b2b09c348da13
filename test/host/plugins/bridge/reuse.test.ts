import * as assert from 'uvu/assert';
import { succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { cleanHost, ip, ipam, link, makeNamespace, network, sh, startHelper } from './host.ts';

const test = suite('bridge: an address that is used again', { limit: 120 });
test.beforeEach(cleanHost);
test.after(cleanHost);

const config = network({
  ipam: ipam([], {
    ranges: [
      [{ subnet: '10.88.0.0/16', rangeStart: '10.88.0.10', rangeEnd: '10.88.0.11' }],
      [{ subnet: 'fd00:88::/64', rangeStart: 'fd00:88::10', rangeEnd: 'fd00:88::11' }],
    ],
  }),
});
const ADDRESSES = ['10.88.0.10', 'fd00:88::10'];
/** The contract's figure (D18): without help it takes 9 to 31 s until neighbours notice. */
const LIMIT_MS = 100;

interface Neighbour {
  readonly dst: string;
  readonly lladdr?: string;
}

/** Which MAC a namespace's neighbour cache has for an address. */
function cachedMac(address: string, namespace?: string): string | undefined {
  return ip<Neighbour>('neigh show', namespace).find(({ dst }) => dst === address)?.lladdr;
}

test(`host and peer reach the new owner within ${LIMIT_MS} ms, although their caches name the old one`, async () => {
  const slowest: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    cleanHost();
    slowest.push(await slowestAnswerAfterReuse());
  }
  const told = `slowest answers of ${ROUNDS} rounds in ms: ${slowest.join(', ')}`;
  slowest.sort((one, other) => one - other);
  // A round may be slow because the machine is; without announcements every single one takes many seconds.
  assert.ok((slowest[Math.floor(ROUNDS / 2)] ?? Infinity) <= LIMIT_MS, told);
  assert.ok((slowest.at(-1) ?? Infinity) <= 10 * LIMIT_MS, told);
});

const ROUNDS = 5;

async function slowestAnswerAfterReuse(): Promise<number> {
  for (const name of ['old', 'new', 'peer']) makeNamespace(name);
  succeed('bridge', 'ADD', { id: 'old', netns: '/run/netns/old' }, config);
  succeed('bridge', 'ADD', { id: 'peer', netns: '/run/netns/peer' }, config);
  await startHelper('echo.ts', 'old');
  const host = await startHelper('probe.ts', undefined);
  const peer = await startHelper('probe.ts', 'peer');
  for (const address of ADDRESSES) {
    assert.is.not(await host.ask(`${address} 2000`), 'none');
    assert.is.not(await peer.ask(`${address} 2000`), 'none');
  }
  const oldMac = link('eth0', 'old')?.address;
  succeed('bridge', 'DEL', { id: 'old', netns: '/run/netns/old' }, config);
  await startHelper('echo.ts', 'new');
  for (const address of ADDRESSES) {
    assert.is(cachedMac(address), oldMac, `the host's stale entry of ${address}`);
    assert.is(cachedMac(address, 'peer'), oldMac, `the peer's stale entry of ${address}`);
  }

  // Two addresses in the range, one taken: the only free one is the old one's.
  succeed('bridge', 'ADD', { id: 'new', netns: '/run/netns/new' }, config);
  const answers = await Promise.all(
    ADDRESSES.flatMap((address) => [host.ask(`${address} 30000`), peer.ask(`${address} 30000`)]),
  );
  assert.is.not(link('eth0', 'new')?.address, oldMac);
  assert.match(sh('ip -n new addr show eth0'), /10\.88\.0\.10\/16/);
  return Math.max(...answers.map((answer) => (answer === 'none' ? Infinity : Number(answer.split(' ')[0]))));
}

test.run();
