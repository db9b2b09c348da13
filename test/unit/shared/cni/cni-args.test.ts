import * as assert from 'uvu/assert';
import { readArgs, splitArgs } from '../../../../shared/cni/environment.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

const test = suite('cni: CNI_ARGS');

test('split at ; and at the first =, in any order, the last of a key counts', () => {
  const text = 'A=1;CONSUL_IPTABLES_CONFIG={"a":"b=c,d"};B=x=y=;A=2;C=';
  const expected = [
    ['A', '2'],
    ['CONSUL_IPTABLES_CONFIG', '{"a":"b=c,d"}'],
    ['B', 'x=y='],
    ['C', ''],
  ];
  assert.equal([...splitArgs(text)], expected);
  assert.equal([...readArgs(`${text};IgnoreUnknown=1`, [])].slice(0, 4), expected);
});

test('empty text, trailing and double ; are fine', () => {
  for (const text of ['', ';', undefined]) assert.is(readArgs(text, ['IP']).size, 0);
  assert.equal([...readArgs('IP=1;;', ['IP'])], [['IP', '1']]);
});

test('what is no pair is an error for those who depend on it, and nothing for the others', () => {
  assert.is(splitArgs('none').size, 0);
  assert.is(splitArgs('=x').size, 0);
  for (const text of ['none', 'IP=1;x', '=x', 'IgnoreUnknown=1;x']) {
    const error = thrown(() => readArgs(text, ['IP']));
    assert.is(error.code, 4);
    assert.match(error.message, /^ARGS: invalid pair "(none|x|=x)"$/);
  }
});

test('unknown keys are refused, unless IgnoreUnknown says otherwise; keys are case-sensitive', () => {
  const error = thrown(() => readArgs('FOO=1;ip=2;IP=3', ['IP']));
  assert.is(error.message, 'ARGS: unknown args ["FOO=1" "ip=2"]');
  assert.is(error.code, 4);
  for (const yes of ['1', 'true', 'True', 'TRUE']) {
    assert.is(readArgs(`FOO=1;IgnoreUnknown=${yes}`, []).get('FOO'), '1');
  }
  for (const no of ['0', 'false', 'False']) {
    assert.match(thrown(() => readArgs(`FOO=1;IgnoreUnknown=${no}`, [])).message, 'unknown args');
  }
  assert.match(thrown(() => readArgs('IgnoreUnknown=perhaps', [])).message, 'must be 1, true, 0 or false');
});

test('what Nomad, kubelet and operators send for other plugins is known', () => {
  const text =
    'IP=1;MAC=2;GATEWAY=3;K8S_POD_NAME=4;K8S_POD_NAMESPACE=d;NOMAD_ALLOC_ID=5;CONSUL_IPTABLES_CONFIG={};CONSUL_NFTABLES_CONFIG={}';
  assert.is(readArgs(text, []).size, 8);
});

test.run();
