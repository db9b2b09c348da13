import { mkdirSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { readNodeConfig } from '../../../../shared/config/node-config.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

const test = suite('node configuration');
const FILE = '/etc/weft/weft.json';

function holding(text: string): typeof FILE {
  mkdirSync('/etc/weft', { recursive: true });
  writeFileSync(FILE, text);
  return FILE;
}

test('a node without the file has no defaults', () => {
  assert.equal(readNodeConfig(), {});
  assert.equal(readNodeConfig('/etc/passwd/weft.json'), {});
});

test('what it can say', () => {
  holding('{"mtu": 1450, "backend": "nftables"}');
  assert.equal(readNodeConfig(), { mtu: 1450, backend: 'nftables' });
  assert.equal(readNodeConfig(holding('{"mtu": "auto"}')), { mtu: 'auto' });
  assert.equal(readNodeConfig(holding('{}')), {});
});

test('a key that means nothing is a mistake, and the known ones are named', () => {
  const error = thrown(() => readNodeConfig(holding('{"mtu": 1450, "bakend": "nftables", "x": 1}')));
  assert.is(error.code, 7);
  assert.is(error.message, '/etc/weft/weft.json: unknown key "bakend", "x"');
  assert.match(error.details ?? '', /known keys: mtu, backend/);
});

test('metrics: an IP address and a port; gc: one of three', () => {
  for (const metrics of ['127.0.0.1:9477', '[::1]:9477'])
    assert.equal(readNodeConfig(holding(JSON.stringify({ metrics, gc: 'on' }))), { metrics, gc: 'on' });
  for (const text of ['9477', ':9477', 'localhost:9477', '127.0.0.1:0', '::1:9477', '[::1]:65536'])
    assert.is(thrown(() => readNodeConfig(holding(JSON.stringify({ metrics: text })))).code, 7, text);
  assert.is(thrown(() => readNodeConfig(holding('{"gc": true}'))).code, 7);
});

test('values out of range are all named', () => {
  const { code, message } = thrown(() => readNodeConfig(holding('{"mtu": 67, "backend": "ebtables"}')));
  assert.is(code, 7);
  assert.match(message, /weft\.json/);
  assert.match(message, /mtu/);
  assert.match(message, /backend/);
  for (const text of ['{"mtu": 65536}', '{"mtu": "1500"}', '{"mtu": 1500.5}', '{"backend": ""}']) {
    assert.is(thrown(() => readNodeConfig(holding(text))).code, 7, text);
  }
});

test('isolation and egress: prefixes are canonical, and what is none is named', () => {
  assert.equal(
    readNodeConfig(
      holding('{"isolation": "allocation", "egress": {"deny": ["169.254.169.254", "FD00::/8"]}}'),
    ),
    { isolation: 'allocation', egress: { deny: ['169.254.169.254/32', 'fd00::/8'], allow: [] } },
  );
  for (const [text, problem] of [
    ['{"isolation": "all"}', '"isolation" must be one of "none", "network", "allocation", got "all"'],
    [
      '{"egress": {"deny": ["10.0.0.1/8"]}}',
      '"egress.deny[0]" must be a prefix without host bits, got "10.0.0.1/8"',
    ],
    ['{"egress": {"allow": ["metadata"]}}', '"egress.allow[0]" must be an address or a prefix'],
    ['{"egress": {"denied": []}}', '"egress.denied" is not known'],
  ] as const) {
    const { code, message } = thrown(() => readNodeConfig(holding(text)));
    assert.is(code, 7);
    assert.ok(message.includes(problem), message);
  }
});

test('a file that is no JSON object is refused', () => {
  for (const text of ['', '{', '[]', 'null', '7', '{"mtu": 1450} x']) {
    const { code, message } = thrown(() => readNodeConfig(holding(text)));
    assert.is(code, 6, text);
    assert.match(message, /^\/etc\/weft\/weft\.json must hold one JSON object: /, text);
  }
});

test('a file that root cannot read either is an error, not an absent file', () => {
  // Address 0 is not mapped: reading it fails with EIO for every user.
  const error = thrown(() => readNodeConfig('/proc/self/mem'));
  assert.is(error.code, 5);
  assert.match(error.message, '/proc/self/mem');
});

test.run();
