import { mkdirSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { makeClientHost, OUTSIDE, sh } from '../../../e2e/support/client-host.ts';
import { NodeAgent } from '../../../support/node-agent.ts';
import { suite } from '../../../support/suite.ts';
import { useVariant } from '../../../support/variants.ts';
import {
  addContainer,
  brokenTraffic,
  comparable,
  listenIn,
  networkList,
  removeContainer,
  rules,
  type Container,
} from './scene.ts';

const test = suite('the agent restores rules', { limit: 60 });
const containers: Container[] = [];
let before = '';
let servers: Server[] = [];

test.before(() => {
  useVariant('nft');
  makeClientHost();
  const lists = [networkList('iptables', 0), networkList('nftables', 1)];
  for (const list of lists)
    for (let number = 1; number <= 2; number++) containers.push(addContainer(list, number));
  before = rules();
  servers = listenIn(OUTSIDE.name, ...containers.map(({ id }) => id));
});

test.after(() => {
  NodeAgent.killAll();
  servers.forEach((server) => server.close());
});

async function until(isTrue: () => boolean, what: string): Promise<void> {
  const end = Date.now() + 15_000;
  while (Date.now() < end) {
    if (isTrue()) return;
    await pause(100);
  }
  assert.unreachable(what);
}

test('after nft flush ruleset and iptables -F, within moments and without being asked', async () => {
  const agent = await NodeAgent.start();
  await until(() => brokenTraffic(containers).length === 0, 'no connections');
  for (const damage of ['nft flush ruleset', 'iptables -t nat -F; ip6tables -F']) {
    sh(damage);
    await until(() => comparable(rules()) === comparable(before), `not restored: ${agent.log}`);
    await until(
      () => brokenTraffic(containers).length === 0,
      `broken: ${brokenTraffic(containers).join(', ')}`,
    );
  }
  await until(() => agent.log.includes('repair: restored'), `not logged: ${agent.log}`);
  assert.match(agent.log, /repair: restored=\d+ missing=\d+ attachments=4 ms=\d+: /);
});

test('no rule of a container that is deleted meanwhile returns', async () => {
  const [gone] = containers;
  assert.ok(gone);
  removeContainer(gone);
  sh('nft flush ruleset');
  await until(() => rules().includes('net0-c2'), 'not restored');
  await pause(3_000);
  assert.not.match(rules(), gone.id);
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
  await until(() => agent.log.includes('CNI-FORWARD'), `not logged: ${agent.log}`);
  assert.match(agent.log, 'repair: rule is missing from chain OUTPUT of table nat (ipv4): -m addrtype');
  assert.match(agent.log, 'repair: rule is missing from chain CNI-FORWARD of table filter (ipv4): ');
  assert.is(rules(), damaged);
});

test.run();
