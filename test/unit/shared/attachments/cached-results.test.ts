import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { CachedResultReader } from '../../../../shared/attachments/cached-results.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('results that a runtime caches, read again and again');
const directory = mkdtempSync(join(tmpdir(), 'results-'));

test.after(() => rmSync(directory, { recursive: true }));

function write(name: string, address: string): void {
  writeFileSync(
    join(directory, name),
    JSON.stringify({
      containerId: name,
      ifName: 'eth0',
      networkName: 'net',
      netns: `/run/netns/${name}`,
      result: { ips: [{ address }] },
    }),
  );
}

const later = (): number => Date.now() + 60_000;

test('a file that has not changed keeps its object; others are read', () => {
  const reader = new CachedResultReader();
  write('a', '10.0.0.2/24');
  write('b', '10.0.0.3/24');
  const first = reader.all(directory, later());
  write('b', '10.0.0.4/24');
  writeFileSync(join(directory, 'c'), 'no result');
  const second = reader.all(directory, later());
  assert.equal(
    second.map(({ addresses }) => addresses),
    [['10.0.0.2/24'], ['10.0.0.4/24']],
  );
  assert.is(second[0], first[0]);
  assert.is(second[0]?.result, first[0]?.result);
  rmSync(join(directory, 'a'));
  assert.is(reader.all(directory, later()).length, 1);
  write('a', '10.0.0.2/24');
  assert.is(reader.all(directory, later()).length, 2);
});

test('a file that was written just now is read again: its times may not tell a second change', () => {
  const reader = new CachedResultReader();
  write('a', '10.0.0.2/24');
  const [first] = reader.all(directory);
  assert.is.not(reader.all(directory)[0], first);
});

test.run();
