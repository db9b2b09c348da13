import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import * as assert from 'uvu/assert';
import { readKernelFile, readRegularFile } from '../../../../shared/kernel/files.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

const test = suite('files');
const folder = mkdtempSync(`${tmpdir()}/weft-files-`);
const at = (name: string): string => `${folder}/${name}`;

test.after(() => rmSync(folder, { recursive: true }));

test('a regular file is read whole, up to the limit', () => {
  writeFileSync(at('text'), 'größer\n');
  assert.is(readRegularFile(at('text')), 'größer\n');
  assert.is(readRegularFile(at('text'), { limitBytes: 9 }), 'größer\n');
  writeFileSync(at('empty'), '');
  assert.is(readRegularFile(at('empty')), '');
  writeFileSync(at('long'), 'x'.repeat(200_000));
  assert.is(readRegularFile(at('long'))?.length, 200_000);
  assert.is(readRegularFile('/proc/self/comm')?.endsWith('\n'), true, 'a file without a size');
});

test('a file over the limit is refused', () => {
  writeFileSync(at('large'), 'x'.repeat(1024 * 1024 + 1));
  assert.is(messageOf(at('large')), `${at('large')}: larger than 1 MiB`);
  assert.is(messageOf(at('large'), { limitBytes: 100 }), `${at('large')}: larger than 100 bytes`);
});

test('an absent path is undefined', () => {
  assert.is(readRegularFile(at('none')), undefined);
  assert.is(readRegularFile(at('text/below')), undefined);
});

test('another type of file is named and not opened', async () => {
  execFileSync('mkfifo', [at('fifo')]);
  mkdirSync(at('folder'));
  const server = createServer().listen(at('socket'));
  await new Promise((resolve) => server.once('listening', resolve));
  const types = ['fifo', 'folder', 'socket'].map((name) => messageOf(at(name)));
  server.close();
  assert.equal(types, [
    `${at('fifo')}: not a regular file (FIFO)`,
    `${at('folder')}: not a regular file (directory)`,
    `${at('socket')}: not a regular file (socket)`,
  ]);
  assert.is(messageOf('/dev/zero'), '/dev/zero: not a regular file (character device)');
});

test('symbolic links are followed unless the caller refuses them', () => {
  symlinkSync(at('text'), at('link'));
  assert.is(readRegularFile(at('link')), 'größer\n');
  assert.is(
    messageOf(at('link'), { followLinks: false }),
    `${at('link')}: not a regular file (symbolic link)`,
  );
  symlinkSync('/dev/zero', at('to-device'));
  assert.is(messageOf(at('to-device')), `${at('to-device')}: not a regular file (character device)`);
  symlinkSync(at('loop'), at('loop'));
  assert.match(messageOf(at('loop')), `cannot read ${at('loop')}: ELOOP`);
});

function messageOf(path: string, options?: Parameters<typeof readRegularFile>[1]): string {
  const { code, message } = thrown(() => readRegularFile(path, options));
  assert.is(code, 5);
  return message;
}

test('a file of the kernel is read whole, short or long', () => {
  assert.is(readKernelFile('/proc/sys/kernel/ostype'), 'Linux\n');
  for (const length of [0, 1, 2048, 2049, 4096, 10_000]) {
    const text = 'x\n'.repeat(length).slice(0, length);
    writeFileSync(at('kernel'), text);
    assert.is(readKernelFile(at('kernel')), text, `${length} bytes`);
  }
  assert.throws(() => readKernelFile('/proc/sys/nothing'), /ENOENT/);
});

test.run();
