import * as assert from 'uvu/assert';
import { isErrno } from '../../../../shared/kernel/errno.ts';
import { inNamespace } from '../../../../shared/kernel/namespace.ts';
import { readSysctl, replaceSysctl, writeSysctl } from '../../../../shared/kernel/sysctl.ts';
import { suite } from '../../../support/suite.ts';
import { makeNamespace, run } from '../../../support/kernel.ts';

const test = suite('sysctl');
const FORWARD = 'net/ipv4/ip_forward';

test('reads as sysctl(8), and a write returns the previous value', () => {
  const before = readSysctl(FORWARD);
  assert.is(before, run('cat', `/proc/sys/${FORWARD}`).trim());
  assert.is(writeSysctl(FORWARD, 1), before);
  assert.is(readSysctl(FORWARD), '1');
  assert.is(writeSysctl(FORWARD, '0'), '1');
  assert.is(readSysctl(FORWARD), '0');
});

test('the value is that of the calling thread’s namespace', () => {
  const box = makeNamespace('box');
  writeSysctl(FORWARD, 0);
  inNamespace(box, () => writeSysctl(FORWARD, 1));
  assert.is(readSysctl(FORWARD), '0');
  assert.is(
    inNamespace(box, () => readSysctl(FORWARD)),
    '1',
  );
});

test('an interface name may contain a dot', () => {
  run('ip', 'link', 'add', 'br0.100', 'type', 'veth', 'peer', 'name', 'other');
  writeSysctl('net/ipv4/conf/br0.100/arp_notify', 1);
  assert.is(run('cat', '/proc/sys/net/ipv4/conf/br0.100/arp_notify').trim(), '1');
});

test('a value that is already set is not written: works on a read-only /proc/sys', () => {
  const value = readSysctl(FORWARD);
  run('mount', '-o', 'bind', '/proc/sys', '/proc/sys');
  run('mount', '-o', 'remount,bind,ro', '/proc/sys');
  try {
    assert.is(writeSysctl(FORWARD, value), value);
    assert.throws(
      () => writeSysctl(FORWARD, value === '1' ? 0 : 1),
      (thrown: unknown) => isErrno(thrown, 'EROFS'),
    );
  } finally {
    run('umount', '/proc/sys');
  }
});

test('a missing parameter is ENOENT, a refused value EINVAL', () => {
  assert.throws(
    () => readSysctl('net/ipv4/no_such_thing'),
    (thrown: unknown) => isErrno(thrown, 'ENOENT'),
  );
  assert.throws(
    () => writeSysctl('net/ipv4/conf/nowhere/arp_notify', 1),
    (thrown: unknown) => isErrno(thrown, 'ENOENT'),
  );
  assert.throws(
    () => writeSysctl('net/ipv4/conf/lo/arp_notify', 'words'),
    (thrown: unknown) => isErrno(thrown, 'EINVAL'),
  );
});

test('paths cannot leave /proc/sys', () => {
  for (const path of ['../meminfo', 'net/../../meminfo', '/etc/passwd', '', 'net//ipv4', './net', 'a\0b']) {
    assert.throws(() => readSysctl(path), /names joined by single slashes/);
  }
});

test('a value is replaced only if it is the expected one', () => {
  writeSysctl(FORWARD, 0);
  replaceSysctl(FORWARD, '1', '0');
  assert.is(readSysctl(FORWARD), '0');
  replaceSysctl(FORWARD, '0', '1');
  assert.is(readSysctl(FORWARD), '1');
});

test.run();
