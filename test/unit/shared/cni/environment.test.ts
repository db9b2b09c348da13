import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { error, FULL, network, run } from './sample.ts';

const test = suite('cni: environment');

const LISTS: Record<string, string> = {
  ADD: 'CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH',
  DEL: 'CNI_CONTAINERID,CNI_IFNAME,CNI_PATH',
  CHECK: 'CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH',
  GC: 'CNI_PATH',
  STATUS: 'CNI_PATH',
};
for (const [command, list] of Object.entries(LISTS)) {
  test(`${command} without variables names all that it needs, before stdin is read`, () => {
    assert.equal(error(run({ CNI_COMMAND: command, CNI_CONTAINERID: '' }, undefined)), {
      code: 4,
      msg: `required env variables [${list}] missing`,
    });
  });
}

test('a wrong value is reported before missing ones; only for verbs that need the variable', () => {
  const bad = error(run({ CNI_COMMAND: 'ADD', CNI_CONTAINERID: '../x' }, undefined));
  assert.equal(bad, { code: 4, msg: 'invalid characters in containerID', details: '../x' });
  const later = error(run({ CNI_COMMAND: 'ADD', CNI_IFNAME: 'a/b' }, undefined));
  assert.is(later['msg'], 'interface name contains / or : or whitespace characters');
  assert.is(
    run({ CNI_COMMAND: 'STATUS', CNI_PATH: '/a', CNI_CONTAINERID: '../x', CNI_IFNAME: '..' }, network())
      .exitCode,
    0,
  );
});

for (const id of ['../x', '_a', '-a', '.a', 'a b', 'a/b', 'ä', 'a\n', '\n']) {
  test(`container id ${JSON.stringify(id)} is refused`, () => {
    assert.equal(error(run({ CNI_COMMAND: 'DEL', ...FULL, CNI_CONTAINERID: id }, undefined)), {
      code: 4,
      msg: 'invalid characters in containerID',
      details: id,
    });
  });
}

const IFNAMES: [string, string, string?][] = [
  ['x'.repeat(16), 'interface name is too long', 'interface name should be less than 16 characters'],
  ['ääääääää', 'interface name is too long', 'interface name should be less than 16 characters'],
  ['.', 'interface name is . or ..'],
  ['..', 'interface name is . or ..'],
  ...['a/b', 'a:b', 'a b', 'a\tb', 'a\u00a0b', 'a\u0085b', 'a\u2003b'].map((name): [string, string] => [
    name,
    'interface name contains / or : or whitespace characters',
  ]),
  ['\u001b[31m', 'interface name contains control characters'],
];
for (const [ifname, msg, details = ifname] of IFNAMES) {
  test(`interface name ${JSON.stringify(ifname)} is refused`, () => {
    assert.equal(error(run({ CNI_COMMAND: 'ADD', ...FULL, CNI_IFNAME: ifname }, undefined)), {
      code: 4,
      msg,
      details,
    });
  });
}

test('15 bytes are a good interface name', () => {
  assert.is(run({ CNI_COMMAND: 'ADD', ...FULL, CNI_IFNAME: 'x'.repeat(15) }, network()).exitCode, 0);
});

test.run();
