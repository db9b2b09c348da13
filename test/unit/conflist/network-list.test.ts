import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { loadNetworkList, parseNetworkList } from '../../../conflist/network-list.ts';
import { suite } from '../../support/suite.ts';
import { thrown } from '../../support/thrown.ts';

const test = suite('network lists');

const parse = (document: unknown) =>
  parseNetworkList(typeof document === 'string' ? document : JSON.stringify(document), 'list.json');
const list = (over: object) => ({ cniVersion: '1.0.0', name: 'net', plugins: [{ type: 'bridge' }], ...over });

test('reads what the runtime needs and keeps the plugins as they were written', () => {
  const text =
    '{"name":"net","cniVersion":"0.4.0","plugins":[{"type":"a","Own":{"x":1.0}},{"type":"b","capabilities":{"mac":true,"ips":false}}]}';
  const { name, cniVersion, plugins, disableCheck, text: kept } = parse(text);
  assert.equal([name, cniVersion, disableCheck], ['net', '0.4.0', false]);
  assert.equal(
    plugins.map(({ type }) => type),
    ['a', 'b'],
  );
  assert.is(JSON.stringify(plugins[0]?.raw), '{"type":"a","Own":{"x":1.0}}');
  assert.equal(plugins[1]?.capabilities, { mac: true, ips: false });
  assert.is(kept, text);
});

test('a lone plugin configuration is a list of one', () => {
  const single = parse({ cniVersion: '0.3.1', name: 'alone', type: 'loopback', extra: 1 });
  assert.equal([single.name, single.cniVersion, single.plugins.length], ['alone', '0.3.1', 1]);
  assert.equal(JSON.parse(single.text), {
    cniVersion: '0.3.1',
    name: 'alone',
    plugins: [{ cniVersion: '0.3.1', name: 'alone', type: 'loopback', extra: 1 }],
  });
});

test('no cniVersion means 0.1.0; of several the newest that we speak counts', () => {
  assert.is(parse({ name: 'net', plugins: [{ type: 'a' }] }).cniVersion, '0.1.0');
  assert.is(parse(list({ cniVersion: '' })).cniVersion, '0.1.0');
  assert.is(
    parse(list({ cniVersion: '0.4.0', cniVersions: ['0.3.1', '1.1.0', '1.0.0'] })).cniVersion,
    '1.1.0',
  );
  assert.is(parse(list({ cniVersion: '0.4.0', cniVersions: ['2.0.0', '0.3.1'] })).cniVersion, '0.4.0');
});

test('an unknown version is refused with the ones that are known', () => {
  for (const over of [{ cniVersion: '9.9.9' }, { cniVersion: '', cniVersions: ['7.0.0'] }]) {
    const error = thrown(() => parse(list(over)));
    assert.is(error.code, 1);
    assert.match(error.message, /list\.json: unsupported cniVersion "[79]/);
    assert.match(error.details ?? '', /0\.1\.0.*1\.1\.0/);
  }
});

test('disableCheck and disableGC may be texts, as libcni reads them', () => {
  const { disableCheck, disableGC } = parse(list({ disableCheck: 'TRUE', disableGC: 'false' }));
  assert.equal([disableCheck, disableGC], [true, false]);
});

const refused: [title: string, document: unknown, code: number, message: RegExp][] = [
  ['empty text', '', 6, /list\.json.*empty/],
  ['broken JSON', '{"name":', 6, /list\.json/],
  ['an array', '[]', 7, /must be a JSON object, got an array/],
  ['no name', { cniVersion: '1.0.0', plugins: [{ type: 'a' }] }, 7, /"name"/],
  ['a name with a slash', list({ name: 'a/b' }), 7, /"name".*letter or digit.*"a\/b"/],
  ['a name that is no text', list({ name: 5 }), 7, /"name".*string.*5/],
  ['no plugins in the array', list({ plugins: [] }), 7, /"plugins".*at least one/],
  ['plugins that are no array', list({ plugins: {} }), 7, /"plugins".*(list|array)/],
  ['a plugin without type', list({ plugins: [{ type: 'a' }, { bridge: 'x' }] }), 7, /plugins\[1\]\.type/],
  ['a type with a slash', list({ plugins: [{ type: '/bin/sh' }] }), 7, /plugins\[0\]\.type.*"\/bin\/sh"/],
  ['an empty type', list({ plugins: [{ type: '' }] }), 7, /plugins\[0\]\.type.*not empty/],
  [
    'a capability that is no boolean',
    list({ plugins: [{ type: 'a', capabilities: { mac: 'yes' } }] }),
    7,
    /capabilities\.mac.*true or false|capabilities\.mac.*boolean/,
  ],
  ['a wrong flag', list({ disableCheck: 'perhaps' }), 7, /"disableCheck"/],
  [
    'a key in another case',
    { ...list({}), plugins: undefined, Plugins: [], type: undefined },
    7,
    /"Plugins" must be spelled "plugins"/,
  ],
  [
    'only inlined plugins, and none',
    { name: 'net', loadOnlyInlinedPlugins: true },
    7,
    /loadOnlyInlinedPlugins/,
  ],
];

for (const [title, document, code, message] of refused) {
  test(`refuses ${title}`, () => {
    const error = thrown(() => parse(document));
    assert.is(error.code, code, error.message);
    assert.match(error.message, message);
    assert.match(error.message, 'list.json');
  });
}

test('all problems are reported together', () => {
  const { message } = thrown(() => parse({ name: '-', disableGC: 'x', plugins: [{ type: 1 }] }));
  for (const key of ['"name"', '"disableGC"', 'plugins[0].type'])
    assert.ok(message.includes(key), `${key} in: ${message}`);
});

test('plugins of the folder named as the network follow those of the list', () => {
  const folder = mkdtempSync('/tmp/weft-lists-');
  mkdirSync(`${folder}/net`);
  writeFileSync(`${folder}/net.conflist`, JSON.stringify(list({})));
  writeFileSync(`${folder}/net/20-b.conf`, '{"type":"second"}');
  writeFileSync(`${folder}/net/10-a.conf`, '{"type":"first"}');
  writeFileSync(`${folder}/net/ignored.json`, '{"type":"no"}');
  assert.equal(
    loadNetworkList(`${folder}/net.conflist`).plugins.map(({ type }) => type),
    ['bridge', 'first', 'second'],
  );
  writeFileSync(`${folder}/net.conflist`, JSON.stringify(list({ loadOnlyInlinedPlugins: true })));
  assert.equal(
    loadNetworkList(`${folder}/net.conflist`).plugins.map(({ type }) => type),
    ['bridge'],
  );
});

test('a file that is not there, and a list without any plugin', () => {
  const missing = thrown(() => loadNetworkList('/nowhere/x.conflist'));
  assert.is(missing.code, 5);
  assert.match(missing.message, '/nowhere/x.conflist');
  const folder = mkdtempSync('/tmp/weft-lists-');
  writeFileSync(`${folder}/net.conflist`, '{"name":"net"}');
  assert.match(
    thrown(() => loadNetworkList(`${folder}/net.conflist`)).message,
    /no "plugins", and there is no directory "net"/,
  );
});

test.run();
