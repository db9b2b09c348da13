import * as assert from 'uvu/assert';
import { call, config, scene } from '../scene.ts';
import { run } from '../../../../support/variants.ts';
import { bad, generation, nft } from '../../../../support/port-host.ts';

const s = scene('CHECK', 'nftables');
const POLICED = { ingressPolicy: 'isolated' };

/** Damages, and CHECK's error for each. */
const DAMAGE: readonly (readonly [command: string, message: string])[] = [
  ['delete table inet weft_firewall', 'table inet weft_firewall is missing'],
  ['delete chain inet weft_firewall forward', 'chain forward of table inet weft_firewall is missing'],
  [
    'flush chain inet weft_firewall forward',
    'rule is missing from chain forward of table inet weft_firewall: jump ingress_policies',
  ],
  [
    'flush chain inet weft_firewall ingress_policies',
    'rule is missing from chain ingress_policies of table inet weft_firewall: iifname . oifname vmap @same_bridge',
  ],
  [
    'flush chain inet weft_firewall admin_chains',
    'rule is missing from chain admin_chains of table inet weft_firewall: jump NOMAD-ADMIN',
  ],
  [
    'insert rule inet weft_firewall forward drop',
    'chain forward of table inet weft_firewall holds rules of other programs, or its own in another order',
  ],
  [
    'delete element inet weft_firewall containers4 { 10.88.0.11 }',
    '10.88.0.11 is missing from set containers4 of table inet weft_firewall',
  ],
  [
    'delete element inet weft_firewall containers6 { fd00:88::11 }',
    'fd00:88::11 is missing from set containers6 of table inet weft_firewall',
  ],
  [
    'flush set inet weft_firewall policy_bridges',
    'br0 is missing from set policy_bridges of table inet weft_firewall',
  ],
  [
    'flush map inet weft_firewall same_bridge',
    'br0 . br0 : drop is missing from map same_bridge of table inet weft_firewall',
  ],
];

for (const [command, message] of DAMAGE) {
  s.test(`${command}: named, left as it is, and mended by ADD`, () => {
    call('ADD', s.c1, POLICED);
    call('CHECK', s.c1, POLICED);
    nft(command);
    const before = [generation(), nft('list ruleset')];
    const error = bad('firewall', 'CHECK', s.c1, config(s.c1, POLICED));
    assert.is(error.msg, `firewall rules are not complete: ${message}`);
    assert.equal([generation(), nft('list ruleset')], before, 'CHECK changes nothing');
    call('ADD', s.c1, POLICED);
    call('CHECK', s.c1, POLICED);
  });
}

s.test('each rule of the chains by itself', () => {
  call('ADD', s.c1, POLICED);
  for (const chain of ['forward', 'ingress_policies', 'admin_chains']) {
    const rules = rulesOf(chain);
    assert.ok(rules.length > 0);
    for (const at of rules.keys()) {
      const { rule, handle } = rulesOf(chain)[at] ?? { rule: '', handle: '' };
      nft(`delete rule inet weft_firewall ${chain} handle ${handle}`);
      const { msg } = bad('firewall', 'CHECK', s.c1, config(s.c1, POLICED));
      const named = msg.split(`rule is missing from chain ${chain} of table inet weft_firewall: `)[1];
      assert.is(named?.replace(/meta nfproto \S+ /, ''), rule, msg);
      call('ADD', s.c1, POLICED);
      call('CHECK', s.c1, POLICED);
    }
    assert.equal(
      rulesOf(chain).map(({ rule }) => rule),
      rules.map(({ rule }) => rule),
    );
  }
});

function rulesOf(chain: string): { rule: string; handle: string }[] {
  return run('nft', '-a', 'list', 'chain', 'inet', 'weft_firewall', chain)
    .split('\n')
    .flatMap((line) => {
      const [, rule = '', handle = ''] = /^\s+(\S.*) # handle (\d+)$/.exec(line) ?? [];
      return rule === '' || rule.startsWith('chain ') ? [] : [{ rule, handle }];
    });
}

s.test('the configuration changed since ADD: a warning that names the key; damage still fails', () => {
  const rows: readonly (readonly [key: string, added: object, now: object])[] = [
    ['iptablesAdminChainName', {}, { iptablesAdminChainName: 'OTHER' }],
    ['ingressPolicy', {}, { ingressPolicy: 'same-bridge' }],
    ['ingressPolicy', {}, POLICED],
    ['ingressPolicy', { ingressPolicy: 'same-bridge' }, POLICED],
    ['backend', {}, { backend: 'iptables' }],
  ];
  for (const [key, added, now] of rows) {
    nft('flush ruleset');
    call('ADD', s.c1, added);
    const log = call('CHECK', s.c1, now);
    assert.match(log, `"${key}"`);
    assert.is(log.trim().split('\n').length, 1, log);
    nft('delete element inet weft_firewall containers4 { 10.88.0.11 }');
    bad('firewall', 'CHECK', s.c1, config(s.c1, now));
  }
  nft('flush ruleset');
  call('ADD', s.c1, POLICED);
  assert.is(call('CHECK', s.c1, { ingressPolicy: 'same-bridge' }), '', 'the stricter policy is enough');
});

s.test('what operators put into their chain is theirs', () => {
  call('ADD', s.c1);
  nft('add rule inet weft_firewall NOMAD-ADMIN tcp dport 25 drop');
  call('CHECK', s.c1);
  const before = generation();
  call('ADD', s.c1);
  assert.is(generation(), before);
});

s.test(
  'ADD and CHECK need prevResult; ADD rejects an invalid configuration before it changes anything',
  () => {
    const wrong: readonly (readonly [object, RegExp])[] = [
      [config(undefined), /missing prevResult from earlier plugin/],
      [config(s.c1, { ingressPolicy: 'foo' }), /unknown ingress policy: "foo"/],
      [config(s.c1, { iptablesAdminChainName: 'A B' }), /iptablesAdminChainName" must be a chain name/],
      [
        config(undefined, {
          ingressPolicy: 'same-bridge',
          prevResult: { cniVersion: '1.1.0', interfaces: [], ips: [] },
        }),
        /interface needs to be set for ingress policy "same-bridge"/,
      ],
    ];
    for (const [body, message] of wrong) {
      // CHECK only warns about an invalid configuration.
      for (const command of message.source.includes('prevResult') ? ['ADD', 'CHECK'] : ['ADD']) {
        const error = bad('firewall', command, s.c1, body);
        assert.is(error.code, 7);
        assert.match(error.msg, message);
      }
    }
    assert.is(nft('list ruleset'), '');
  },
);

s.test.run();
