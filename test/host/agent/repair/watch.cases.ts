import { mkdirSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { makeClientHost, OUTSIDE, sh } from '../../../e2e/support/client-host.ts';
import { NodeAgent } from '../../../support/node-agent.ts';
import { suite } from '../../../support/suite.ts';
import { rounds, THOROUGH } from '../../../support/thorough.ts';
import { useVariant, type Variant } from '../../../support/variants.ts';
import {
  addContainer,
  brokenTraffic,
  comparable,
  listenIn,
  networkList,
  removeContainer,
  rules,
  writeNftablesConf,
  type Container,
} from './scene.ts';

const EACH_NETWORK = rounds(50, 2);
const DAMAGES = [
  'nft flush ruleset',
  'for tool in iptables ip6tables; do $tool -F; $tool -t nat -F; done',
  'for tool in iptables ip6tables; do $tool-restore < /run/$tool.save; done',
  'nft -f /etc/nftables.conf; nft delete table inet filter',
];

/** The agent on a host with both back ends: `npm test -- --thorough` takes a hundred containers. @param variant of iptables */
export function watchCases(variant: Variant): void {
  const test = suite(`the agent restores rules, iptables-${variant} beside nftables`, {
    limit: THOROUGH ? 900 : 120,
  });
  const containers: Container[] = [];
  let before = '';
  let servers: Server[] = [];

  test.before(() => {
    useVariant(variant);
    makeClientHost();
    sh('for tool in iptables ip6tables; do $tool-save > /run/$tool.save; done');
    writeNftablesConf();
    const lists = [networkList('iptables', 0), networkList('nftables', 1)];
    for (let number = 1; number <= EACH_NETWORK; number++)
      for (const list of lists) containers.push(addContainer(list, number));
    before = rules();
    servers = listenIn(OUTSIDE.name, ...containers.map(({ id }) => id));
  });

  test.after(() => {
    NodeAgent.killAll();
    servers.forEach((server) => server.close());
  });

  /** iptables-legacy sends no notifications: the agent looks every 30 s. */
  const longestMs = variant === 'nft' ? 15_000 : 50_000;

  const damages = variant === 'nft' || THOROUGH ? DAMAGES : DAMAGES.slice(1, 2);

  const until = async (isTrue: () => boolean, what: () => string): Promise<void> => {
    const end = Date.now() + longestMs;
    while (Date.now() < end) {
      if (isTrue()) return;
      await pause(100);
    }
    assert.unreachable(what());
  };

  test('after another program has deleted them, within moments and without being asked: traffic, and all rules as before', async () => {
    const agent = await NodeAgent.start();
    const traffic = (): Promise<void> =>
      until(
        () => brokenTraffic(containers).length === 0,
        () => `broken: ${brokenTraffic(containers).join(', ')}; ${agent.log}`,
      );
    await traffic();
    for (const damage of damages) {
      sh(damage);
      const began = Date.now();
      await traffic();
      if (THOROUGH)
        console.log(`${containers.length} containers, ${damage}: connected after ${Date.now() - began} ms`);
      await until(
        () => comparable(rules()) === comparable(before),
        () => `not restored: ${agent.log}`,
      );
      // Not so often that repair pauses.
      if (THOROUGH) await pause(10_000);
    }
    assert.match(
      agent.log,
      new RegExp(`repair: restored=\\d+ missing=\\d+ attachments=${containers.length} ms=\\d+: `),
    );
  });

  // The same with each variant.
  if (variant === 'legacy' && !THOROUGH) {
    test.run();
    return;
  }

  test('no rule of a container that is deleted meanwhile returns', async () => {
    const [gone, , next] = containers.splice(0, 1).concat(containers);
    assert.ok(gone && next);
    removeContainer(gone);
    sh(DAMAGES.slice(0, 2).join('; '));
    await until(
      () => rules().includes(next.id),
      () => 'not restored',
    );
    await pause(3_000);
    assert.not.match(rules(), `"${gone.id}"`);
    NodeAgent.killAll();
  });

  test('"repair": "log": nothing is written, and the log names every missing piece', async () => {
    mkdirSync('/etc/weft', { recursive: true });
    writeFileSync('/etc/weft/weft.json', '{"repair": "log"}');
    const agent = await NodeAgent.start();
    sh(
      'iptables -t nat -D OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT; iptables -D CNI-FORWARD 1',
    );
    const damaged = rules();
    await until(
      () => agent.log.includes('CNI-FORWARD'),
      () => `not logged: ${agent.log}`,
    );
    assert.match(agent.log, 'repair: rule is missing from chain OUTPUT of table nat (ipv4): -m addrtype');
    assert.match(agent.log, 'repair: rule is missing from chain CNI-FORWARD of table filter (ipv4): ');
    assert.is(rules(), damaged);
  });

  test.run();
}
