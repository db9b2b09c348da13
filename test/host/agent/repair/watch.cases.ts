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
  missingHere,
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

  test('no rule of a container that is deleted meanwhile returns', async () => {
    // The same with each variant, but it takes half a minute with legacy.
    if (variant === 'legacy' && !THOROUGH) {
      NodeAgent.killAll();
      return;
    }
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

  /** An agent on a host with damaged rules, with this value of `repair`, until it has looked. @returns the pieces in its log */
  const piecesLogged = async (repair: 'log' | 'off', count: number): Promise<string[]> => {
    mkdirSync('/etc/weft', { recursive: true });
    writeFileSync('/etc/weft/weft.json', JSON.stringify({ repair }));
    const agent = await NodeAgent.start();
    const pieces = (): string[] => agent.log.match(/(?<=^repair: ).*/gm) ?? [];
    await until(
      () => pieces().length >= count,
      () => `not logged: ${agent.log}`,
    );
    assert.is(await agent.stop(), 0);
    return pieces();
  };

  test('"repair": "log": nothing is written, and the log names every missing piece; "off": neither', async () => {
    const kernel = 'net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.br0.route_localnet';
    sh(`
      iptables -t nat -D OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT; iptables -D CNI-FORWARD 1
      ip6tables -t nat -F; nft flush chain inet weft_firewall forward; nft delete table ip weft_hostports
      nft flush map inet weft_masquerade ipv4; for key in ${kernel}; do sysctl -qw $key=0; done`);
    const damaged = rules();
    const missing = await missingHere();
    const logged = await piecesLogged('log', missing.length);
    assert.equal(logged, missing);
    for (const piece of [
      /^rule is missing from chain OUTPUT of table nat \(ipv4\): -m addrtype/,
      /^rule is missing from chain CNI-FORWARD of table filter \(ipv4\): /,
      /^rule is missing from chain CNI-HOSTPORT-DNAT of table nat \(ipv6\): /,
      /^missing: add rule inet weft_firewall forward/,
      /^missing: add element ip weft_hostports ports/,
      /^missing: add element inet weft_masquerade ipv4/,
      /^net\.ipv4\.ip_forward is not 1$/,
      /^net\.ipv6\.conf\.all\.forwarding is not 1$/,
      /^net\.ipv4\.conf\.br0\.route_localnet is not 1$/,
    ])
      assert.ok(
        logged.some((line) => piece.test(line)),
        `${piece.source}: ${logged.join('\n')}`,
      );
    assert.equal(await piecesLogged('off', 0), []);
    assert.is(rules(), damaged);
    assert.is(sh(`sysctl -n ${kernel}`), '0\n0\n0\n');
  });

  test.run();
}
