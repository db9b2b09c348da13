import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import manifest from '../../../package.json' with { type: 'json' };
import { executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';

const test = suite('weft licenses');
const ROOT = resolve(import.meta.dirname, '../../..');

test('prints the notices of Node and of every npm package that the product imports', () => {
  const text = execFileSync(executable('weft'), ['licenses'], { encoding: 'utf8', maxBuffer: 4 * 2 ** 20 });
  for (const name of Object.keys(manifest.dependencies)) {
    const { version } = JSON.parse(readFileSync(`${ROOT}/node_modules/${name}/package.json`, 'utf8')) as {
      version: string;
    };
    assert.match(text, `\n${name} ${version} (`);
  }
  for (const part of ['\nNode.js 26', 'V8', 'OpenSSL', 'ICU']) assert.match(text, part);
  assert.not.match(text, '\ntypescript ');
});

test('is the text that the build writes next to dist/bin', () => {
  const text = execFileSync(executable('weft'), ['licenses'], { encoding: 'utf8', maxBuffer: 4 * 2 ** 20 });
  assert.is(text, readFileSync(`${ROOT}/dist/THIRD-PARTY-NOTICES.txt`, 'utf8'));
});

test.run();
