import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { nodeBase } from '../../../build/node-binary.mjs';
import { Elf, LayoutError, PT } from '../../../build/elf.mjs';
import { withoutLibatomic } from '../../../build/libatomic.mjs';
import { locateSnapshot, replaceBlob, trimCodeCache } from '../../../build/sea-blob.mjs';
import { stripElf } from '../../../build/strip.mjs';
import { executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';

/** What the build changes in files of undocumented formats: it changes what it recognises, and refuses the rest. */
const test = suite('build: layouts', { limit: 60 });

const base = nodeBase(resolve(import.meta.dirname, '../../..'));
const refused = (part: string) => (error: unknown) =>
  error instanceof LayoutError && error.message.includes(part);

test('another architecture is refused with the reason, a missing Node with the command that brings it', () => {
  const other = process.arch === 'x64' ? 'arm64' : 'x64';
  assert.throws(
    () => nodeBase(resolve(import.meta.dirname, '../../..'), other),
    new RegExp(`^cannot build for ${other} on ${process.arch}: .*heap snapshot.* on such a machine$`),
  );
  assert.throws(
    () => nodeBase('/run/empty'),
    /^\/run\/empty\/node_modules\/node-linux-\w+\/bin\/node is missing: run `npm ci`/,
  );
  const copy = mkdtempSync('/run/clone-');
  execFileSync('cp', [
    '-r',
    ...['build.mjs', 'build', 'cli', 'scripts'].map((name) => resolve(import.meta.dirname, '../../..', name)),
    copy,
  ]);
  const { status, stderr } = spawnSync(process.execPath, [join(copy, 'build.mjs')], { encoding: 'utf8' });
  assert.is(status, 1);
  assert.match(stderr, /^build\.mjs: [^\n]* is missing: run `npm ci`[^\n]*\n$/);
});

test('stripping keeps every loaded byte and the names of loaded sections', () => {
  const original = readFileSync(base.source);
  const stripped = stripElf(original);
  for (const { type, offset, fileSize } of new Elf(original).segments()) {
    if (type !== PT.LOAD) continue;
    const [from, end] = [offset === 0 ? 64 : offset, offset + fileSize];
    assert.ok(original.subarray(from, end).equals(stripped.subarray(from, end)), `segment at ${offset}`);
  }
  const file = join(mkdtempSync('/run/strip-'), 'node');
  writeFileSync(file, stripped, { mode: 0o755 });
  assert.is(execFileSync(file, ['-p', '6 * 7'], { encoding: 'utf8' }), '42\n');
  const sections = execFileSync(
    'sh',
    ['-c', `command -v readelf >/dev/null && readelf -SW ${file} || echo .text`],
    { encoding: 'utf8' },
  );
  assert.match(sections, '.text');
  assert.not.match(sections, '.symtab');
  assert.not.match(sections, 'Warning');
});

test('libatomic is the only difference from the Node of npm, and is not reported as missing', () => {
  assert.equal(base.notes, []);
  const original = readFileSync(base.source);
  const patched = Buffer.from(original);
  withoutLibatomic(new Elf(patched));
  assert.ok(readFileSync(base.file).equals(stripElf(patched)));
});

test('stripping twice gives the same as once', () => {
  const once = stripElf(readFileSync(base.source));
  assert.ok(once.equals(stripElf(once)));
});

test('what is no ELF file is refused', () => {
  assert.throws(() => stripElf(Buffer.from('#!/bin/sh\n'.repeat(20))), refused('not an ELF file'));
});

test("a snapshot's code cache is cut down to the modules asked for, the rest stays as it was", () => {
  const blob = makeBlob();
  const { before, after, blob: trimmed } = trimCodeCache(blob, ['fs', 'path']);
  assert.ok(before > 400);
  assert.is(after, 2);
  const [was, is] = [locateSnapshot(blob), locateSnapshot(trimmed)];
  assert.is(is.start, was.start);
  assert.ok(
    blob.subarray(was.end).equals(trimmed.subarray(is.end)),
    'assets and arguments behind the snapshot',
  );
  assert.ok(is.end - is.start < was.end - was.start - 2e6);
});

test('a blob of another version is refused', () => {
  const blob = makeBlob();
  const other = (change: (copy: Buffer) => void): Buffer => {
    const copy = Buffer.from(blob);
    change(copy);
    return copy;
  };
  const { start, end } = locateSnapshot(blob);
  assert.throws(
    () =>
      trimCodeCache(
        other((copy) => copy.writeUInt8(0x21, 0)),
        [],
      ),
    refused('not a blob'),
  );
  assert.throws(
    () =>
      trimCodeCache(
        other((copy) => copy.writeUInt8(0x21, start)),
        [],
      ),
    refused('no startup snapshot'),
  );
  // One byte less at the snapshot's end: no table leads exactly there any more.
  const shorter = Buffer.concat([blob.subarray(0, end - 1), blob.subarray(end)]);
  shorter.writeBigUInt64LE(BigInt(end - 1 - start), start - 8);
  assert.throws(() => trimCodeCache(shorter, []), refused('no table of compiled'));
  assert.throws(() => trimCodeCache(blob, ['no/such/module']), refused('lacks code'));
});

test('a blob that does not fit into the executable is refused, and one that is not there is not found', () => {
  const packed = readFileSync(executable('bridge'));
  assert.throws(() => replaceBlob(packed, Buffer.alloc(packed.length)), refused('larger than the old one'));
  assert.throws(() => replaceBlob(readFileSync(base.file), Buffer.alloc(8)), refused('no note segment'));
});

test.run();

let made: Buffer | undefined;

/** A real one, of an empty program. */
function makeBlob(): Buffer {
  if (made !== undefined) return made;
  const folder = mkdtempSync('/run/blob-');
  writeFileSync(
    join(folder, 'main.cjs'),
    `require('v8').startupSnapshot.setDeserializeMainFunction(() => {});`,
  );
  const config = {
    main: 'main.cjs',
    output: 'blob',
    useSnapshot: true,
    execArgv: ['--no-warnings'],
    assets: { text: 'main.cjs' },
  };
  writeFileSync(join(folder, 'sea.json'), JSON.stringify(config));
  execFileSync(base.file, ['--experimental-sea-config', 'sea.json'], { cwd: folder, stdio: 'pipe' });
  made = readFileSync(join(folder, 'blob'));
  return made;
}
