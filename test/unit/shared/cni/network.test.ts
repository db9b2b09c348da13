import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { suite } from '../../../support/suite.ts';
import { error, FULL, network, run } from './sample.ts';

const test = suite('cni: stdin');

for (const text of [
  '',
  '  \n',
  'broken',
  '{"name":"n"',
  '{"name":"n"} x',
  '{"name":"n"}{}',
  "{'name':'n'}",
  '[1,]',
  '[]',
  '"n"',
  '5',
  'true',
  '{"name":5}',
  '\ufeff{"name":"n"}',
]) {
  for (const command of ['ADD', 'STATUS', 'FOO']) {
    test(`${command} with stdin ${JSON.stringify(text)}: decoding error`, () => {
      const { code, msg } = error(run({ CNI_COMMAND: command, ...FULL }, text));
      assert.is(code, 6);
      assert.match(String(msg), /^error unmarshall network config: /);
    });
  }
}

test('deep nesting is answered, whether it can be read or not', () => {
  for (const depth of [100, 5_000, 2_000_000]) {
    const seen = run(
      { CNI_COMMAND: 'ADD', ...FULL },
      `{"name":"n","x":${'['.repeat(depth)}${']'.repeat(depth)}}`,
    );
    if (seen.exitCode !== 0) assert.is(error(seen)['code'], 6);
  }
});

test('network name: missing, null and bad', () => {
  for (const raw of ['null', '{}', '{"name":""}', '{"name":null}']) {
    assert.equal(error(run({ CNI_COMMAND: 'ADD', ...FULL }, raw)), { code: 7, msg: 'missing network name' });
  }
  for (const name of ['../x', '_a', 'a b', 'a\n']) {
    assert.equal(error(run({ CNI_COMMAND: 'GC', ...FULL }, network({ name }))), {
      code: 7,
      msg: 'invalid characters found in network name',
      details: name,
    });
  }
});

test('keys in any case', () => {
  const seen = run(
    { CNI_COMMAND: 'ADD', ...FULL },
    '{"NAME":"n","CNIVERSION":"1.0.0","PrevResult":{"IPS":[{"ADDRESS":"10.0.0.1/8"}]}}',
  );
  assert.is((JSON.parse(seen.out) as CniResult & { cniVersion: string }).cniVersion, '1.0.0');
  assert.equal(seen.calls[0]?.call.prevResult?.ips, [{ address: '10.0.0.1/8' }]);
});

test('no cniVersion means 0.1.0', () => {
  for (const raw of ['{"name":"n"}', '{"name":"n","cniVersion":""}', '{"name":"n","cniVersion":null}']) {
    const seen = run({ CNI_COMMAND: 'ADD', ...FULL }, raw);
    assert.equal(JSON.parse(seen.out), { cniVersion: '0.1.0', ip4: { ip: '10.0.0.2/24' }, dns: {} });
  }
});

test('unsupported versions: ADD and DEL', () => {
  for (const version of ['9.9.9', '1.2.0', '0.0.1', 'foo', '1.0', 'v1.0.0']) {
    for (const command of ['ADD', 'DEL']) {
      assert.equal(error(run({ CNI_COMMAND: command, ...FULL }, network({ cniVersion: version }))), {
        code: 1,
        msg: 'incompatible CNI versions',
        details: `config is "${version}", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]`,
      });
    }
  }
  const { code, msg } = error(run({ CNI_COMMAND: 'ADD', ...FULL }, network({ cniVersion: 1 })));
  assert.equal(
    [code, msg],
    [6, 'decoding version from network config: "cniVersion" must be a string, got 1 (number)'],
  );
});

const TOO_OLD: Record<string, string[]> = {
  CHECK: ['', '0.1.0', '0.3.1', '0.3'],
  GC: ['', '0.4.0', '1.0.0', '1.0'],
  STATUS: ['0.2.0', '1.0.0', '1'],
};
for (const [command, versions] of Object.entries(TOO_OLD)) {
  test(`${command} and versions: too old, too new, garbage, just right`, () => {
    const say = (cniVersion: string): unknown[] => {
      const { code, msg } = error(run({ CNI_COMMAND: command, ...FULL }, network({ cniVersion })));
      return [code, msg];
    };
    for (const version of versions)
      assert.equal(say(version), [1, `config version does not allow ${command}`]);
    for (const version of ['1.1.1', '2.0.0', '2'])
      assert.equal(say(version), [1, `plugin version does not allow ${command}`]);
    for (const version of ['foo', '1.x', '1.0.0.0', '1.-1.0']) assert.is(say(version)[0], 6);
    assert.equal(say('1.1'), [1, 'incompatible CNI versions']);
    const good = command === 'CHECK' ? '0.4.0' : '1.1.0';
    const seen = run(
      { CNI_COMMAND: command, ...FULL },
      network({ cniVersion: good, 'cni.dev/attachments': [] }),
    );
    assert.equal(
      [seen.exitCode, seen.out, seen.err, seen.calls.map(({ verb }) => verb)],
      [0, '', '', [command.toLowerCase()]],
    );
  });
}

test('a plugin of few versions', () => {
  const seen = run({ CNI_COMMAND: 'ADD', ...FULL }, network({ cniVersion: '0.3.1' }), {
    supportedVersions: ['0.4.0', '1.0.0'],
  });
  assert.is(error(seen)['details'], 'config is "0.3.1", plugin supports ["0.4.0" "1.0.0"]');
  const status = run({ CNI_COMMAND: 'STATUS', ...FULL }, network(), {
    supportedVersions: ['0.4.0', '1.0.0'],
  });
  assert.is(error(status)['msg'], 'plugin version does not allow STATUS');
});

test('prevResult: refused for ADD and CHECK when unreadable, left out for DEL with a line on stderr', () => {
  const stdin = network({ cniVersion: '1.0.0', prevResult: { cniVersion: '0.4.0', ips: [] } });
  for (const command of ['ADD', 'CHECK']) {
    const { code, msg } = error(run({ CNI_COMMAND: command, ...FULL }, stdin));
    assert.equal(
      [code, msg],
      [6, 'prevResult has cniVersion "0.4.0", which cannot be read as version 1.0.0'],
    );
  }
  const seen = run({ CNI_COMMAND: 'DEL', ...FULL }, stdin);
  assert.equal([seen.exitCode, seen.out], [0, '']);
  assert.is(
    seen.err,
    'sample: continuing without prevResult: prevResult has cniVersion "0.4.0", which cannot be read as version 1.0.0\n',
  );
  assert.is(seen.calls[0]?.call.prevResult, undefined);
});

const ONE = { containerID: 'a', ifname: 'eth0' };
test("GC reads its list under both keys, the specification's first; in any case of letters", () => {
  const lists: [object, object[]][] = [
    [{ 'cni.dev/valid-attachments': [ONE] }, [ONE]],
    [{ 'cni.dev/attachments': [ONE] }, [ONE]],
    [{ 'cni.dev/valid-attachments': [], 'cni.dev/attachments': [ONE] }, []],
    [{ 'cni.dev/valid-attachments': [{ ContainerID: 'a', IfName: 'eth0' }] }, [ONE]],
  ];
  for (const [keys, expected] of lists) {
    const seen = run({ CNI_COMMAND: 'GC', ...FULL }, network(keys));
    assert.equal([seen.exitCode, seen.out, seen.calls[0]?.verb], [0, '', 'gc']);
    assert.equal(seen.calls[0]?.call.validAttachments, expected);
    assert.equal(
      [seen.calls[0]?.call.containerId, seen.calls[0]?.call.netns, seen.calls[0]?.call.ifname],
      ['', '', ''],
    );
  }
});

test('GC without a list, or with null, removes nothing and says so', () => {
  for (const keys of [{}, { 'cni.dev/valid-attachments': null }]) {
    const seen = run({ CNI_COMMAND: 'GC', ...FULL }, network(keys));
    assert.equal([seen.exitCode, seen.out, seen.calls], [0, '', []]);
    assert.match(seen.err, 'nothing is removed');
  }
});

test('GC with a list that cannot be read fails: an entry lost would be a container deleted', () => {
  for (const list of [
    'x',
    {},
    [null],
    [{}],
    [ONE, { containerID: 'b' }],
    [{ containerID: '', ifname: 'e' }],
    [{ containerID: 5, ifname: 'e' }],
  ]) {
    const seen = run({ CNI_COMMAND: 'GC', ...FULL }, network({ 'cni.dev/valid-attachments': list }));
    assert.is(error(seen)['code'], 7);
    assert.equal(seen.calls, []);
  }
});

test.run();
