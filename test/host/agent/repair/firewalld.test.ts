/** The agent beside the distribution's firewalld: rules and sources after its reload and its restart. */
import type { ChildProcess } from 'node:child_process';
import type { Server } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { makeClientHost, OUTSIDE } from '../../../e2e/support/client-host.ts';
import { NodeAgent } from '../../../support/node-agent.ts';
import { suite } from '../../../support/suite.ts';
import { useVariant } from '../../../support/variants.ts';
import {
  equipHost,
  firewallCmd,
  sources,
  startBus,
  startFirewalld,
  stop,
  whyWithout,
} from '../../plugins/firewall/firewalld/host.ts';
import {
  addContainer,
  brokenTraffic,
  comparable,
  listenIn,
  networkList,
  rules,
  type Container,
} from './scene.ts';

const test = suite('the agent beside firewalld', { limit: 120 });
const containers: Container[] = [];
let bus: ChildProcess | undefined;
let firewalld: ChildProcess | undefined;
let servers: Server[] = [];
let agent: NodeAgent;
let before: ReturnType<typeof state>;

/** Firewalld lists sources in any order; its own rules are its own. */
function state(): { rules: string; sources: string[] } {
  const ours = rules()
    .split(/^(?=table )/m)
    .filter((table) => !table.startsWith('table inet firewalld '));
  return { rules: comparable(ours.join('')), sources: sources().sort() };
}

async function until(isTrue: () => boolean): Promise<void> {
  for (const end = Date.now() + 30_000; !isTrue() && Date.now() < end;) await pause(100);
}

/** Within 30 s also on a machine with other work; without, a reload takes the agent less than a second. */
async function expectRestored(): Promise<void> {
  await until(() => sources().length === before.sources.length && brokenTraffic(containers).length === 0);
  assert.equal(brokenTraffic(containers), [], agent.log);
  assert.equal(state(), before, agent.log);
}

if (whyWithout !== undefined) test.skip('all of it', whyWithout);
else {
  test.before(async () => {
    equipHost();
    useVariant('nft');
    makeClientHost();
    bus = await startBus();
    firewalld = await startFirewalld();
    containers.push(addContainer(networkList('iptables', 0, 'firewalld'), 1));
    containers.push(addContainer(networkList('nftables', 1, 'firewalld'), 1));
    containers.push(addContainer(networkList('iptables', 2), 1));
    servers = listenIn(OUTSIDE.name, ...containers.map(({ id }) => id));
    // Rules of iptables cannot accept what firewalld rejects.
    for (const kind of [['--permanent'], []]) firewallCmd(...kind, '--zone=trusted', '--add-interface=br2');
    await until(() => brokenTraffic(containers).length === 0);
    assert.equal(brokenTraffic(containers), []);
    before = state();
    assert.is(before.sources.length, 4);
    agent = await NodeAgent.start();
  });

  test.after(async () => {
    servers.forEach((server) => server.close());
    NodeAgent.killAll();
    await stop(firewalld);
    await stop(bus);
  });

  test('its reload', async () => {
    firewallCmd('--reload');
    await expectRestored();
  });

  test('its restart', async () => {
    await stop(firewalld);
    firewalld = await startFirewalld();
    await expectRestored();
  });
}

test.run();
