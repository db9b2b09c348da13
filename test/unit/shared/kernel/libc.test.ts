import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import {
  randomBytes,
  KernelError,
  checked,
  isErrno,
  lastErrno,
  libc,
  systemCallNumbers,
} from '../../../../shared/kernel/libc.ts';
import { suite } from '../../../support/suite.ts';
import { kernelError } from '../../../support/kernel.ts';

const test = suite('libc');
const HEADERS = {
  x64: '/usr/include/x86_64-linux-gnu/asm/unistd_64.h',
  // arm64 is one of those that came later and count as the generic header says.
  arm64: '/usr/include/asm-generic/unistd.h',
};
const LIBC = resolve(import.meta.dirname, '../../../../shared/kernel/libc.ts');

test('errno is that of the failing call, call after call', () => {
  const calls: [string, () => number][] = [
    ['EBADF', () => libc().setns(-1, 0)],
    ['EINVAL', () => libc().unshare(0x1)],
    ['EAFNOSUPPORT', () => libc().socket(99, 3, 0)],
    ['ENOENT', () => libc().umount2('/nowhere/at/all', 0)],
    ['ENOTSOCK', () => libc().recv(0, Buffer.alloc(4), 4, 0x40)],
  ];
  for (let round = 0; round < 50; round++) {
    for (const [code, call] of calls) kernelError(code, () => checked('call', call()));
  }
});

test('a successful call returns its number', () => {
  const fd = checked('socket', libc().socket(1, 1, 0));
  assert.ok(fd > 2);
  assert.is(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8').includes('flags'), true);
});

test('a part of a buffer is a pointer to that part, also of a small one', () => {
  const [one, other] = [1, 2].map(() => checked('socket', libc().socket(1, 2, 0))) as [number, number];
  // Two bytes, the family alone: the kernel chooses a name.
  checked('bind', libc().bind(other, Uint8Array.of(1, 0), 2));
  const address = Buffer.alloc(110);
  const length = Buffer.from(Uint32Array.of(address.length).buffer);
  checked('getsockname', libc().getsockname(other, address, length));
  checked('connect', libc().connect(one, address, length.readUInt32LE()));
  for (const size of [8, 4096]) {
    const sent = Buffer.alloc(size, 'abcdefgh');
    const received = Buffer.alloc(size);
    checked('send', libc().send(one, sent.subarray(3, 7), 4, 0));
    assert.is(checked('recv', libc().recv(other, received.subarray(2), size - 2, 0)), 4);
    assert.is(received.toString('latin1', 0, 8), '\0\0defg\0\0');
  }
  assert.is(libc().poll(pollfd(other), 1, 20), 0);
  closeSync(one);
  closeSync(other);
});

/** struct pollfd, waiting for POLLIN */
function pollfd(fd: number): Buffer {
  const request = Buffer.alloc(8);
  request.writeInt32LE(fd, 0);
  request.writeInt16LE(1, 4);
  return request;
}

for (const [arch, header] of Object.entries(HEADERS)) {
  const title = `system calls have the numbers of the kernel's header on ${arch}`;
  if (!existsSync(header)) {
    test.skip(title, `there is no ${header} (Debian: linux-libc-dev)`);
    continue;
  }
  test(title, () => {
    const text = readFileSync(header, 'utf8');
    const numbers = Object.entries(systemCallNumbers(arch) ?? {});
    assert.is(numbers.length, 22);
    for (const [name, number] of numbers)
      assert.match(text, new RegExp(`^#define __NR_${name} ${number}$`, 'm'));
  });
}

test('an error has call, errno, code and explanation', () => {
  const error = new KernelError('RTM_NEWROUTE 10.0.0.0/8', 101, {
    detail: 'Nexthop has invalid gateway',
    offset: 44,
  });
  assert.is(
    error.message,
    'RTM_NEWROUTE 10.0.0.0/8: ENETUNREACH: network is unreachable (Nexthop has invalid gateway)',
  );
  assert.is(error.errno, 101);
  assert.is(error.syscall, 'RTM_NEWROUTE 10.0.0.0/8');
  assert.is(error.detail, 'Nexthop has invalid gateway');
  assert.is(error.offset, 44);
});

test('an unknown errno still has a code', () => {
  assert.is(new KernelError('call', 4095).code, 'E4095');
});

test('isErrno matches by code, also errors of node:fs, and nothing by text', () => {
  assert.ok(isErrno(new KernelError('call', 17), 'ENOENT', 'EEXIST'));
  assert.not.ok(isErrno(new KernelError('call', 17), 'ENOENT'));
  try {
    readFileSync('/nowhere');
  } catch (thrown) {
    assert.ok(isErrno(thrown, 'ENOENT'));
  }
  assert.not.ok(isErrno(new Error('EEXIST'), 'EEXIST'));
  assert.not.ok(isErrno({ code: 'EEXIST' }, 'EEXIST'));
  assert.not.ok(isErrno(undefined, 'EEXIST'));
});

test('the table of error names agrees with the platform', () => {
  const codes = new Map(Object.entries(constants.errno).map(([code, errno]) => [errno, code]));
  const checkable = [...codes.keys()].filter((errno) => !/^E\d/.test(new KernelError('x', errno).code));
  assert.ok(checkable.length > 50, `${checkable.length} codes`);
  // EOPNOTSUPP and EAGAIN have a second name each; node may list either.
  const second: Record<string, string> = { ENOTSUP: 'EOPNOTSUPP', EWOULDBLOCK: 'EAGAIN' };
  for (const errno of checkable) {
    const code = codes.get(errno) ?? '';
    assert.is(new KernelError('x', errno).code, second[code] ?? code);
  }
});

test('loading node:ffi prints no warning, and other warnings are printed', () => {
  const script = `
    const { libc } = await import(${JSON.stringify(LIBC)});
    libc();
    process.emitWarning('kept', 'ExperimentalWarning');`;
  const { stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
  });
  assert.is(status, 0);
  assert.not.match(stderr, 'FFI');
  assert.match(stderr, 'ExperimentalWarning: kept');
});

test('exitNow ends the process with its status and runs no exit handler', () => {
  const script = `
    const { exitNow } = await import(${JSON.stringify(LIBC)});
    process.on('exit', () => console.log('handler'));
    exitNow(7);`;
  const { stdout, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
  });
  assert.is(status, 7);
  assert.is(stdout, '');
});

test('lastErrno reads without a call in between', () => {
  libc().setns(-1, 0);
  assert.is(lastErrno(), 9);
});

test('random bytes: as many as asked for, different each time', () => {
  const seen = new Set(Array.from({ length: 100 }, () => randomBytes(6).toString('hex')));
  assert.is(seen.size, 100);
  assert.ok([...seen].every((text) => text.length === 12));
  assert.is(randomBytes(0).length, 0);
});

test('random bytes: every byte varies', () => {
  const sums = new Uint8Array(6);
  for (let round = 0; round < 100; round += 1)
    randomBytes(6).forEach((byte, index) => (sums[index] = (sums[index] ?? 0) | byte));
  assert.equal([...sums], [255, 255, 255, 255, 255, 255]);
});

test.run();
