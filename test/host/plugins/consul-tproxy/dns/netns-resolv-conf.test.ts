import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import * as assert from 'uvu/assert';
import {
  netnsName,
  removeEveryNetnsResolvConf,
  removeNetnsResolvConf,
  writeNetnsResolvConf,
} from '../../../../../plugins/consul-tproxy/dns/netns-resolv-conf.ts';
import { isErrno } from '../../../../../shared/kernel/errno.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite('resolv.conf of a named namespace');

const OWNER = { network: 'nomad', containerId: 'alloc-1', ifname: 'eth0' };
const CONF = { nameservers: ['192.0.2.1'], search: ['a.example'], options: ['ndots:2'] };
const isOwner = (owner: { containerId: string }): boolean => owner.containerId === OWNER.containerId;
const write = (owner = OWNER): string => writeNetnsResolvConf('ns', owner, CONF);

test.beforeEach(() => rmSync('/etc/netns', { recursive: true, force: true }));

test('the name of a namespace is the last part of a path in /run/netns', () => {
  assert.is(netnsName('/run/netns/a'), 'a');
  assert.is(netnsName('/var/run/netns/3f2a-x'), '3f2a-x');
  for (const path of [
    '',
    '/proc/1/ns/net',
    '/var/run/docker/netns/a',
    '/run/netns/',
    '/run/netns/a/b',
    '/run/netns/..',
    '/run/netns/.',
    'run/netns/a',
  ]) {
    assert.is(netnsName(path), undefined, path);
  }
});

test('writes the file, marked, readable for everybody whatever the umask', () => {
  const umask = process.umask(0o077);
  try {
    assert.is(write(), 'written');
  } finally {
    process.umask(umask);
  }
  assert.is(
    readFileSync('/etc/netns/ns/resolv.conf', 'utf8'),
    '# weft: network=nomad container=alloc-1 interface=eth0\nnameserver 192.0.2.1\nsearch a.example\noptions ndots:2\n',
  );
  assert.equal(
    ['/etc/netns', '/etc/netns/ns', '/etc/netns/ns/resolv.conf'].map((path) => statSync(path).mode & 0o777),
    [0o755, 0o755, 0o644],
  );
  assert.equal(readdirSync('/etc/netns/ns'), ['resolv.conf']);
});

test('replaces a file of ours, also one of an allocation that had the namespace before, as a new file', () => {
  write({ ...OWNER, containerId: 'before' });
  const { ino } = statSync('/etc/netns/ns/resolv.conf');
  assert.is(write(), 'written');
  assert.is.not(statSync('/etc/netns/ns/resolv.conf').ino, ino);
  assert.match(readFileSync('/etc/netns/ns/resolv.conf', 'utf8'), /container=alloc-1/);
});

test('takes over from a write that was cut off', () => {
  mkdirSync('/etc/netns/ns', { recursive: true });
  writeFileSync('/etc/netns/ns/.resolv.conf.weft', '# we');
  assert.is(write(), 'written');
  assert.equal(readdirSync('/etc/netns/ns'), ['resolv.conf']);
});

test("leaves an operator's file alone, and a link or folder in its place", () => {
  mkdirSync('/etc/netns/ns', { recursive: true });
  for (const text of [
    'nameserver 192.0.2.9\n',
    '',
    '# weft: network=nomad\n',
    '\n# weft: network=a container=b interface=c\n',
  ]) {
    writeFileSync('/etc/netns/ns/resolv.conf', text);
    assert.is(write(), 'unmanaged');
    removeNetnsResolvConf('ns', () => true);
    assert.is(readFileSync('/etc/netns/ns/resolv.conf', 'utf8'), text);
  }
  rmSync('/etc/netns/ns/resolv.conf');
  writeFileSync('/tmp/target', '# weft: network=nomad container=alloc-1 interface=eth0\n');
  symlinkSync('/tmp/target', '/etc/netns/ns/resolv.conf');
  assert.is(write(), 'unmanaged');
  removeNetnsResolvConf('ns', () => true);
  assert.ok(lstatSync('/etc/netns/ns/resolv.conf').isSymbolicLink());
  assert.is(readFileSync('/tmp/target', 'utf8'), '# weft: network=nomad container=alloc-1 interface=eth0\n');
  rmSync('/etc/netns/ns/resolv.conf');
  mkdirSync('/etc/netns/ns/resolv.conf');
  assert.is(write(), 'unmanaged');
});

test('a FIFO in its place is left alone and does not block, with or without a writer', () => {
  mkdirSync('/etc/netns/ns', { recursive: true });
  execFileSync('mkfifo', ['/etc/netns/ns/resolv.conf']);
  assert.is(write(), 'unmanaged');
  const otherEnd = openSync('/etc/netns/ns/resolv.conf', 'r+');
  assert.is(write(), 'unmanaged');
  removeNetnsResolvConf('ns', () => true);
  removeEveryNetnsResolvConf(() => true);
  closeSync(otherEnd);
  assert.ok(lstatSync('/etc/netns/ns/resolv.conf').isFIFO());
});

test('follows no link on the way', () => {
  mkdirSync('/tmp/elsewhere/ns', { recursive: true });
  symlinkSync('/tmp/elsewhere', '/etc/netns');
  refused();
  rmSync('/etc/netns');
  mkdirSync('/etc/netns');
  symlinkSync('/tmp/elsewhere/ns', '/etc/netns/ns');
  refused();
  assert.equal(readdirSync('/tmp/elsewhere/ns'), []);
  assert.ok(lstatSync('/etc/netns/ns').isSymbolicLink());
});

test('a link at the temporary name is replaced, not followed', () => {
  mkdirSync('/etc/netns/ns', { recursive: true });
  writeFileSync('/tmp/victim', 'precious');
  symlinkSync('/tmp/victim', '/etc/netns/ns/.resolv.conf.weft');
  assert.is(write(), 'written');
  assert.is(readFileSync('/tmp/victim', 'utf8'), 'precious');
  assert.not.ok(lstatSync('/etc/netns/ns/resolv.conf').isSymbolicLink());
});

test('removes its own, then the folders if they are empty', () => {
  write();
  removeNetnsResolvConf('ns', isOwner);
  assert.not.ok(existsSync('/etc/netns'));
  write();
  writeFileSync('/etc/netns/ns/hosts', '');
  removeNetnsResolvConf('ns', isOwner);
  assert.equal(readdirSync('/etc/netns/ns'), ['hosts']);
});

test("leaves another container's file, and other namespaces", () => {
  write({ ...OWNER, containerId: 'other' });
  removeNetnsResolvConf('ns', isOwner);
  assert.ok(existsSync('/etc/netns/ns/resolv.conf'));
  mkdirSync('/etc/netns/empty');
  writeNetnsResolvConf('ns2', OWNER, CONF);
  removeNetnsResolvConf('ns2', isOwner);
  assert.equal(readdirSync('/etc/netns').sort(), ['empty', 'ns']);
});

test('removing what is already gone succeeds', () => {
  removeNetnsResolvConf('ns', isOwner);
  removeEveryNetnsResolvConf(isOwner);
  mkdirSync('/etc/netns');
  removeNetnsResolvConf('ns', isOwner);
  // And so is a file where the folder would be: nothing of ours can be in it.
  rmSync('/etc/netns', { recursive: true, force: true });
  writeFileSync('/etc/netns', '');
  removeNetnsResolvConf('ns', isOwner);
  removeEveryNetnsResolvConf(isOwner);
  assert.ok(existsSync('/etc/netns'));
});

test('finds the files of an owner among all', () => {
  for (const name of ['a', 'b']) writeNetnsResolvConf(name, OWNER, CONF);
  writeNetnsResolvConf('c', { ...OWNER, containerId: 'other' }, CONF);
  mkdirSync('/etc/netns/d');
  writeFileSync('/etc/netns/d/resolv.conf', 'nameserver 192.0.2.9\n');
  writeFileSync('/etc/netns/file', '');
  removeEveryNetnsResolvConf(isOwner);
  assert.equal(readdirSync('/etc/netns').sort(), ['c', 'd', 'file']);
});

test.run();

function refused(): void {
  try {
    write();
  } catch (thrown) {
    assert.ok(isErrno(thrown, 'ENOTDIR', 'ELOOP'), String(thrown));
    return;
  }
  assert.unreachable('a link was followed');
}
