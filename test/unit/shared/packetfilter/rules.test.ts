import * as assert from 'uvu/assert';
import { randomBelow } from '../../../support/random.ts';
import { suite } from '../../../support/suite.ts';
import { isUnmanaged, sameRule } from '../../../../shared/packetfilter/compare.ts';
import { parseRule, parseRuleArgs } from '../../../../shared/packetfilter/iptables/parse.ts';
import { ruleText, savedText, splitArgs } from '../../../../shared/packetfilter/iptables/render.ts';
import type { Rule } from '../../../../shared/packetfilter/ruleset.ts';

const test = suite('rules as iptables prints them');

/** Every shape the suite writes, with the text that iptables-save 1.8.9 printed for it. */
const GOLDENS: readonly [string, Rule][] = [
  [
    '-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT',
    {
      matches: [{ kind: 'addrtype', destinationType: 'LOCAL' }],
      target: { kind: 'jump', chain: 'CNI-HOSTPORT-DNAT' },
    },
  ],
  [
    String.raw`! -s 192.0.2.0/24 -p tcp -m comment --comment "dnat name: \"n\" id: \"it\'s\"" -m multiport --dports 80,8000:8099 -j CNI-A`,
    {
      source: { value: '192.0.2.0/24', negated: true },
      protocol: 'tcp',
      matches: [
        { kind: 'comment', comment: `dnat name: "n" id: "it's"` },
        {
          kind: 'multiport',
          destinationPorts: [
            { first: 80, last: 80 },
            { first: 8000, last: 8099 },
          ],
        },
      ],
      target: { kind: 'jump', chain: 'CNI-A' },
    },
  ],
  [
    '-d 10.0.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    {
      destination: { value: '10.0.0.2/32' },
      matches: [{ kind: 'conntrack', states: ['ESTABLISHED', 'RELATED'] }],
      target: { kind: 'accept' },
    },
  ],
  [
    '-i br0 ! -o br0 -m comment --comment "a.b" -j CNI-ISOLATION-STAGE-2',
    {
      inInterface: { value: 'br0' },
      outInterface: { value: 'br0', negated: true },
      matches: [{ kind: 'comment', comment: 'a.b' }],
      target: { kind: 'jump', chain: 'CNI-ISOLATION-STAGE-2' },
    },
  ],
  [
    '-p tcp -m tcp --dport 8000:8099 -j DNAT --to-destination 10.0.0.2:9000-9099/8000',
    {
      protocol: 'tcp',
      matches: [{ kind: 'port', destinationPort: { first: 8000, last: 8099 } }],
      target: { kind: 'dnat', to: '10.0.0.2:9000-9099/8000' },
    },
  ],
  [
    '-p sctp -m sctp --dport 80 -j DNAT --to-destination [fd00::2]:80',
    {
      protocol: 'sctp',
      matches: [{ kind: 'port', destinationPort: { first: 80, last: 80 } }],
      target: { kind: 'dnat', to: '[fd00::2]:80' },
    },
  ],
  [
    '-m mark --mark 0x1 -m mark ! --mark 0x2000/0x2000 -j MARK --set-xmark 0x5/0xffffffff',
    {
      matches: [
        { kind: 'mark', value: 1, mask: 0xffffffff },
        { kind: 'mark', value: 0x2000, mask: 0x2000, negated: true },
      ],
      target: { kind: 'mark', value: 5, mask: 0xffffffff },
    },
  ],
  [
    '! -d ff00::/8 -m comment --comment simple_c-1 -j MASQUERADE',
    {
      destination: { value: 'ff00::/8', negated: true },
      matches: [{ kind: 'comment', comment: 'simple_c-1' }],
      target: { kind: 'masquerade' },
    },
  ],
  [
    '-p tcp -m owner --uid-owner 0-100 -j REDIRECT --to-ports 15001',
    {
      protocol: 'tcp',
      matches: [{ kind: 'owner', uid: { first: 0, last: 100 } }],
      target: { kind: 'redirect', port: 15001 },
    },
  ],
  [
    '-m owner --uid-owner 101 -j RETURN',
    { matches: [{ kind: 'owner', uid: { first: 101, last: 101 } }], target: { kind: 'return' } },
  ],
  ['-p ipv6-icmp -j DROP', { protocol: 'icmpv6', target: { kind: 'drop' } }],
  [
    '-p tcp -j REJECT --reject-with tcp-reset',
    { protocol: 'tcp', target: { kind: 'reject', with: 'tcp-reset' } },
  ],
  [
    '-m comment --comment "" -j RETURN',
    { matches: [{ kind: 'comment', comment: '' }], target: { kind: 'return' } },
  ],
];

for (const [text, rule] of GOLDENS) {
  test(`prints and reads ${text}`, () => {
    assert.is(ruleText(rule), text);
    const parsed = parseRule(text);
    assert.not(isUnmanaged(parsed));
    assert.ok(sameRule(parsed as Rule, rule));
    assert.is(ruleText(parsed as Rule), text);
  });
}

test('keeps the words of matches that it does not know', () => {
  const text = '-s 10.0.0.0/8 -m set ! --match-set blocked src -m comment --comment x -j CNI-A';
  const rule = parseRule(text) as Rule;
  assert.equal(rule.matches?.[0], {
    kind: 'rawArgs',
    args: ['-m', 'set', '!', '--match-set', 'blocked', 'src'],
  });
  assert.is(ruleText(rule), text);
});

const FOREIGN = [
  '-j LOG --log-prefix "bad -j ACCEPT "',
  '-g CNI-A',
  '-p esp -j ACCEPT',
  '! -p tcp -j ACCEPT',
  '-s 10.0.0.0/8',
  '-f -j DROP',
  '-j DNAT --to-destination 10.0.0.2:80 --random',
  '-j MASQUERADE --random-fully',
  '',
];
for (const text of FOREIGN) {
  test(`leaves foreign: ${text}`, () => assert.equal(parseRule(text), { unmanaged: text }));
}

test('knows a known match only in the form it prints itself', () => {
  for (const match of [
    '-m multiport --sports 80',
    '-m conntrack --ctstate NEW,DNAT',
    '-m tcp --dport 80 --tcp-flags SYN SYN',
    '-m owner --gid-owner 5',
    '-m addrtype --src-type LOCAL',
    '-m constructor --x y',
  ]) {
    const rule = parseRule(`-p tcp ${match} -j ACCEPT`) as Rule;
    assert.equal(rule.matches, [{ kind: 'rawArgs', args: match.split(' ') }]);
  }
});

test('counts rules as the same whatever the order of matches and states', () => {
  const one = parseRule('-p tcp -m multiport --dports 80 -m comment --comment x -j CNI-A') as Rule;
  const other = parseRule('-p tcp -m comment --comment x -m multiport --dports 80 -j CNI-A') as Rule;
  assert.ok(sameRule(one, other));
  assert.not(
    sameRule(one, parseRule('-p udp -m comment --comment x -m multiport --dports 80 -j CNI-A') as Rule),
  );
});

test('reads what an operator writes in long words', () => {
  assert.equal(parseRuleArgs(['!', '--source', '10.0.0.0/8', '--in-interface', 'eth0']), {
    source: { value: '10.0.0.0/8', negated: true },
    inInterface: { value: 'eth0' },
  });
});

test('splits words as iptables-restore does', () => {
  assert.equal(splitArgs(String.raw`-m comment --comment "a \"b\" c\'s \\" -j X ""`), [
    '-m',
    'comment',
    '--comment',
    `a "b" c's \\`,
    '-j',
    'X',
    '',
  ]);
});

test('quotes any text so that it comes back the same', () => {
  const random = randomBelow(7);
  const alphabet = `ab"'\\ -_.0:é`;
  for (let round = 0; round < 2000; round++) {
    const text = Array.from({ length: random(12) }, () => alphabet.charAt(random(alphabet.length))).join('');
    assert.equal(splitArgs(`--comment ${savedText(text)} -j X`), ['--comment', text, '-j', 'X']);
  }
});

test.run();
