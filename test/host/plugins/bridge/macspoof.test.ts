import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { cleanHost, hostState, link, makeNamespace, network, sh, startHelper } from './host.ts';
import { trace } from '../../../support/steps.ts';
import { hideNft } from './world.ts';

const test = suite('bridge: MAC spoofing check', { limit: 40 });
test.beforeEach(cleanHost);
test.after(cleanHost);

const c1 = { id: 'cont1', netns: '/run/netns/c1' };
const c2 = { id: 'cont2', netns: '/run/netns/c2' };
const config = network({ macspoofchk: true });
const SPOOFED = '02:66:66:66:66:66';

async function reaches(from: string, to: string): Promise<boolean> {
  const probe = await startHelper('probe.ts', from);
  return (await probe.ask(`${to} 700`)) !== 'none';
}

test('frames under another MAC are dropped, from the one container that is checked', async () => {
  for (const name of ['c1', 'c2']) makeNamespace(name);
  succeed('bridge', 'ADD', c1, config);
  succeed('bridge', 'ADD', c2, network());
  await startHelper('echo.ts', undefined);
  assert.ok(await reaches('c1', '10.88.0.1'));
  const own = link('eth0', 'c1')?.address;
  sh(
    `ip -n c1 link set eth0 address ${SPOOFED}; ip -n c2 link set eth0 address ${SPOOFED.replace(/66$/, '67')}`,
  );
  assert.not.ok(await reaches('c1', '10.88.0.1'), 'spoofed frames pass');
  assert.ok(await reaches('c2', '10.88.0.1'), 'a container without the check is held up');
  sh(`ip -n c1 link set eth0 address ${own}`);
  assert.ok(await reaches('c1', '10.88.0.1'));
});

test('a MAC that was asked for is the one that passes', async () => {
  makeNamespace('c1');
  succeed('bridge', 'ADD', c1, { ...config, args: { cni: { mac: SPOOFED } } });
  await startHelper('echo.ts', undefined);
  assert.ok(await reaches('c1', '10.88.0.1'));
});

test('table, chains and comments of the reference; a second ADD doubles nothing; DEL takes all', () => {
  makeNamespace('c1');
  const { interfaces } = succeed('bridge', 'ADD', c1, config) as CniResult;
  const [, host, container] = interfaces;
  const shown = (): string[] =>
    sh('nft list table bridge nat')
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '');
  const comment = 'comment "macspoofchk-cont1-eth0"';
  const expected = [
    'table bridge nat {',
    'chain PREROUTING {',
    'type filter hook prerouting priority dstnat; policy accept;',
    `iifname "${host?.name}" jump cni-br-iface-cont1-eth0 ${comment}`,
    '}',
    'chain cni-br-iface-cont1-eth0 {',
    `jump cni-br-iface-cont1-eth0-mac ${comment}`,
    '}',
    'chain cni-br-iface-cont1-eth0-mac {',
    `ether saddr ${container?.mac} return ${comment}`,
    `drop ${comment}`,
    '}',
    '}',
  ];
  assert.equal(shown(), expected);
  succeed('bridge', 'ADD', c1, config);
  assert.equal(shown(), expected);
  // What the reference's own second ADD leaves, and a chain that was flushed.
  const again = `iifname ${host?.name} jump cni-br-iface-cont1-eth0 comment '"macspoofchk-cont1-eth0"'`;
  sh(`nft add rule bridge nat PREROUTING ${again}; nft flush chain bridge nat cni-br-iface-cont1-eth0-mac`);
  succeed('bridge', 'ADD', c1, config);
  assert.equal(shown(), expected);
  succeed('bridge', 'DEL', c1, config);
  assert.equal(shown(), [...expected.slice(0, 3), '}', '}']);
});

test('an id too long for a comment still gets its own chains', () => {
  makeNamespace('c1');
  const long = { ...c1, id: 'y'.repeat(200) };
  succeed('bridge', 'ADD', long, config);
  assert.match(sh('nft list table bridge nat'), /cni-br-iface-y+-[0-9a-f]{16}-mac/);
  succeed('bridge', 'DEL', long, config);
  assert.not.match(sh('nft list table bridge nat'), /yyy/);
});

test('it needs no nft program', () => {
  makeNamespace('c1');
  const showNft = hideNft();
  try {
    const prevResult = succeed('bridge', 'ADD', c1, config);
    succeed('bridge', 'CHECK', c1, { ...config, prevResult });
  } finally {
    showNft();
  }
  assert.match(sh('nft list table bridge nat'), /macspoofchk-cont1-eth0/);
});

test('a kernel without nf_tables: ADD fails and leaves nothing, DEL works', () => {
  makeNamespace('c1');
  const before = hostState();
  // Two sockets are of rtnetlink, for host and container; whichever is asked for then is refused.
  const refused = 'socket:error=EPROTONOSUPPORT:when=3+';
  const { exitCode, stdout } = trace('bridge', 'ADD', c1, config, refused);
  assert.is(exitCode, 1);
  assert.match(stdout, /MAC spoofing check|EPROTONOSUPPORT/);
  assert.equal(hostState(), before);
  assert.is(trace('bridge', 'DEL', c1, config, refused).exitCode, 0);
});

test.run();
