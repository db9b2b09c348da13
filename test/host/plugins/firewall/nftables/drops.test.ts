import * as assert from 'uvu/assert';
import { run, sh } from '../../../../support/variants.ts';
import { ask, OUTSIDE } from '../../../../support/port-host.ts';
import { call, generation, nft, nftScene } from '../../../../support/nft-host.ts';

/**
 * Other tables that drop what ours accepts. What is told is held against what happens: a warning where packets are lost, none
 * where they arrive, and the commands that it names make them arrive.
 */
const s = nftScene('firewall on nftables: drops of other tables');
const IPTABLES = ['iptables', 'ip6tables'];

s.test.beforeEach(() => {
  for (const program of IPTABLES) {
    run(program, '-P', 'FORWARD', 'ACCEPT');
    run(program, '-F');
  }
});

/** Whether what c1 sends outside is answered: by IPv4, by IPv6. */
const arrives = (): boolean[] =>
  [OUTSIDE.ipv4, OUTSIDE.ipv6].map((address) =>
    /^out/.test(ask('c1', 'udp', address, 80, { patience: 1_000 })),
  );

s.test('nothing is told where nobody drops', () => {
  nft('add table inet mine');
  nft('add chain inet mine forward { type filter hook forward priority 0; policy accept; }');
  nft('add rule inet mine forward tcp dport 25 drop');
  nft('add rule inet mine forward ct state invalid drop');
  nft('add chain inet mine input { type filter hook input priority 0; policy drop; }');
  nft('add rule inet mine input iifname { "br0", "up0", "lo" } accept');
  assert.is(call('ADD', s.c1), '');
  assert.equal(arrives(), [true, true]);
});

s.test('iptables’ policy DROP, as Docker leaves it: told with table and chain, and the remedy works', () => {
  for (const program of IPTABLES) {
    run(program, '-P', 'FORWARD', 'DROP');
    for (const rule of [
      '-o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
      '-o docker0 -j ACCEPT',
      '-i docker0 ! -o docker0 -j ACCEPT',
    ])
      run(program, '-A', 'FORWARD', ...rule.split(' '));
  }
  const log = call('ADD', s.c1);
  const lines = log.trim().split('\n');
  assert.is(lines.length, 2, log);
  assert.match(
    lines[0] ?? '',
    /packets of this container do not get through: chain FORWARD of table ip filter drops them \(policy drop\)/,
  );
  assert.match(lines[1] ?? '', /chain FORWARD of table ip6 filter drops them/);
  assert.match(log, /set "backend": "iptables"/);
  assert.equal(arrives(), [false, false]);
  const before = generation();
  assert.is(call('CHECK', s.c1), '', 'CHECK does not fail for it, nor tells');
  assert.is(generation(), before);
  for (const command of commandsIn(log)) sh(command);
  assert.is(call('ADD', s.c1), '');
  assert.equal(arrives(), [true, true]);
});

s.test('and with that backend they arrive as well', () => {
  for (const program of IPTABLES) run(program, '-P', 'FORWARD', 'DROP');
  assert.is(call('ADD', s.c1, { backend: 'iptables' }), '');
  assert.equal(arrives(), [true, true]);
  call('DEL', s.c1);
});

s.test('only answers are dropped', () => {
  sh('iptables -P FORWARD DROP');
  sh('iptables -A FORWARD -i br0 -j ACCEPT');
  assert.match(
    call('ADD', s.c1),
    /answers to this container do not get through: chain FORWARD of table ip filter/,
  );
  assert.equal(arrives(), [false, true]);
});

s.test('a table of the operator’s own, by policy and by rule', () => {
  const chain = 'inet mine passing { type filter hook forward priority 5; policy drop; }';
  nft('add table inet mine');
  nft(`add chain ${chain}`);
  nft('add rule inet mine passing ct state { established, related } accept');
  let log = call('ADD', s.c1);
  assert.match(log, /chain passing of table inet mine drops them \(policy drop\)/);
  assert.equal(arrives(), [false, false]);
  for (const command of commandsIn(log)) sh(command);
  assert.is(call('ADD', s.c1), '');
  assert.equal(arrives(), [true, true]);

  nft(`add chain ${chain.replace('drop', 'accept')}`);
  nft('flush chain inet mine passing');
  nft('add rule inet mine passing iifname vmap { "up0" : accept, "br1" : drop }');
  assert.is(call('ADD', s.c1), '');
  assert.match(
    call('ADD', s.far),
    /chain passing of table inet mine drops them \(a rule there drops or rejects them\)/,
  );
  nft('add rule inet mine passing reject with icmpx admin-prohibited');
  log = call('ADD', s.c1);
  assert.match(log, /a rule there drops or rejects them/);
  assert.equal(arrives(), [false, false]);
  for (const command of commandsIn(log)) sh(command);
  assert.is(call('ADD', s.c1), '');
  assert.equal(arrives(), [true, true]);
});

s.test('iptables-legacy’s policy is told, too', () => {
  sh('iptables-legacy -P FORWARD DROP');
  assert.match(call('ADD', s.c1), /chain FORWARD of iptables-legacy \(ipv4\) has policy DROP/);
  assert.equal(arrives(), [false, true]);
  sh('iptables-legacy -P FORWARD ACCEPT');
  assert.is(call('ADD', s.c1), '');
});

s.test('rules of the operator’s in iptables’ chain that nobody asks any more', () => {
  sh('iptables -N NOMAD-ADMIN');
  sh('iptables -A NOMAD-ADMIN -o br0 -d 10.88.0.0/16 -j ACCEPT');
  assert.is(call('ADD', s.c1), '', 'Nomad’s own rule accepts what nobody drops');
  sh(`iptables -A NOMAD-ADMIN -d ${OUTSIDE.ipv4} -j DROP`);
  assert.match(
    call('ADD', s.c1),
    /the rules in chain NOMAD-ADMIN of iptables have no effect .*: iptables -I FORWARD -j NOMAD-ADMIN/,
  );
  assert.equal(arrives(), [true, true]);
  sh('iptables -I FORWARD -j NOMAD-ADMIN');
  assert.is(call('ADD', s.c1), '', 'they are asked now');
  assert.equal(arrives(), [false, true]);
});

/** The commands that a warning names behind `let them through there:`. */
function commandsIn(log: string): string[] {
  return [...log.matchAll(/let them through there: (.*)$/gm)].flatMap(([, list = '']) => list.split('; '));
}

s.test.run();
