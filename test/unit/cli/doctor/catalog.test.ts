import { globSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { withoutSecrets } from '../../../../cli/doctor/allocation.ts';
import { CATALOG } from '../../../../cli/doctor/catalog.ts';
import { satisfies } from '../../../../cli/doctor/plugin-files.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('weft doctor: catalog of findings');
const root = resolve(import.meta.dirname, '../../../..');

test('docs/operate/doctor.md has every finding, in the same words', () => {
  const page = readFileSync(`${root}/docs/operate/doctor.md`, 'utf8');
  const rows = [...page.matchAll(/^\| `([a-z0-9-]+)` +\| (\w+) +\| (.*?) +\| (.*?) +\|$/gm)].map(
    ([, ...cells]) => cells,
  );
  assert.equal(
    rows,
    Object.entries(CATALOG).map(([id, { level, about, why }]) => [id, level, about, why]),
  );
});

test('every finding is reported by a check, and prepared by a test', () => {
  const read = (pattern: string): string =>
    globSync(pattern, { cwd: root })
      .filter((file) => !file.endsWith('catalog.ts') && !file.endsWith('catalog.test.ts'))
      .map((file) => readFileSync(`${root}/${file}`, 'utf8'))
      .join('\n');
  const [code, tests] = [read('cli/doctor/*.ts'), read('test/{host,unit}/cli/doctor/*.test.ts')];
  const ids = Object.keys(CATALOG);
  assert.equal(
    ids.filter((id) => !code.includes(`'${id}'`)),
    [],
    'no check',
  );
  assert.equal(
    ids.filter((id) => !tests.includes(`'${id}'`)),
    [],
    'no prepared fault',
  );
});

test('secrets of a bootstrap command and environment are hidden', () => {
  const lines: [string, string][] = [
    [
      'connect envoy -grpc-addr unix:///alloc/tmp/consul_grpc.sock -token 1234-5678 -bootstrap',
      'connect envoy -grpc-addr unix:///alloc/tmp/consul_grpc.sock -token <hidden> -bootstrap',
    ],
    ['    "CONSUL_HTTP_TOKEN=1234-5678",', '    "CONSUL_HTTP_TOKEN=<hidden>",'],
    ['    "CONSUL_HTTP_AUTH=user:password",', '    "CONSUL_HTTP_AUTH=<hidden>",'],
    ['    "VAULT_TOKEN=s.abc"', '    "VAULT_TOKEN=<hidden>"'],
    ['\u001b[31mred\u001b[0m', '[31mred[0m'],
    ['    "NOMAD_ALLOC_ID=11111111-aaaa",', '    "NOMAD_ALLOC_ID=11111111-aaaa",'],
  ];
  for (const [given, shown] of lines) assert.is(withoutSecrets(given), shown);
});

test('versions as go-version compares them', () => {
  for (const version of ['1.4.2', 'v1.4.2', '1.10.0', '2', 'v1.4.3+ent'])
    assert.ok(satisfies(version, '1.4.2'), version);
  for (const version of ['1.4.1', 'v0.9.9', '1.4', '1.5.0-rc1'])
    assert.not(satisfies(version, '1.4.2'), version);
});

test.run();
