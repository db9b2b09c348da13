import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readlinkSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import {
  inNamespace,
  inScratchNamespace,
  findNamespace,
  isNetworkNamespace,
  isOwnNamespace,
  openNamespace,
  openOwnNamespace,
} from '../../../../shared/kernel/namespace.ts';
import { suite } from '../../../support/suite.ts';
import { cniError, makeNamespace, run } from '../../../support/kernel.ts';

const test = suite('namespace');
const NAMESPACE = resolve(import.meta.dirname, '../../../../shared/kernel/namespace.ts');
const here = (): string => readlinkSync('/proc/self/ns/net');
const home = here();
const inode = (path: string): bigint => statSync(path, { bigint: true }).ino;
const openDescriptors = (): number => readdirSync('/proc/self/fd').length;

let one = '';
let two = '';
test.before(() => {
  one = makeNamespace('one');
  two = makeNamespace('two');
});

test('runs inside and returns, by path and by open namespace', () => {
  assert.is(inNamespace(one, here), `net:[${inode(one)}]`);
  assert.is(here(), home);
  using opened = openNamespace(two);
  assert.is(inNamespace(opened, here), `net:[${inode(two)}]`);
  assert.is(here(), home);
  assert.is(inNamespace(opened, here), `net:[${inode(two)}]`);
});

test('returns what the work returns', () => {
  assert.equal(
    inNamespace(one, () => ({ answer: 42 })),
    { answer: 42 },
  );
});

test('returns when the work throws, with the same error', () => {
  const thrown = new Error('from inside');
  assert.throws(
    () =>
      inNamespace(one, () => {
        throw thrown;
      }),
    (caught: unknown) => caught === thrown,
  );
  assert.is(here(), home);
});

test('nests: each level returns to the one around it', () => {
  inNamespace(one, () => {
    inNamespace(two, () => assert.is(here(), `net:[${inode(two)}]`));
    assert.is(here(), `net:[${inode(one)}]`);
  });
  assert.is(here(), home);
});

test('refuses asynchronous work, and returns', () => {
  assert.throws(() => inNamespace(one, async () => Promise.resolve()), /synchronous/);
  assert.is(here(), home);
});

test('files of the namespace are seen inside: its own sysctls and links', () => {
  run('ip', '-n', 'one', 'link', 'add', 'onlyhere', 'type', 'veth', 'peer', 'name', 'itspeer');
  const names = inNamespace(one, () => readdirSync('/proc/sys/net/ipv4/conf'));
  assert.ok(names.includes('onlyhere'));
  assert.not.ok(readdirSync('/proc/sys/net/ipv4/conf').includes('onlyhere'));
});

test('leaves no descriptor open, also after a throw', () => {
  const before = openDescriptors();
  inNamespace(one, here);
  assert.throws(() => inNamespace('/nowhere', here));
  assert.throws(() => inNamespace('/etc/passwd', here));
  assert.throws(() =>
    inNamespace(one, () => {
      throw new Error('inside');
    }),
  );
  openNamespace(one).close();
  openOwnNamespace().close();
  isNetworkNamespace(one);
  isNetworkNamespace('/etc/passwd');
  assert.is(openDescriptors(), before);
});

test('close may be called twice and does not close another descriptor', () => {
  const opened = openNamespace(one);
  opened.close();
  const other = openNamespace(two);
  assert.is(other.fd, opened.fd);
  opened.close();
  assert.is(inNamespace(other, here), `net:[${inode(two)}]`);
  other.close();
});

test('a missing path is error 8 with the text of the reference', () => {
  const error = cniError(8, () => openNamespace('/run/netns/gone'));
  assert.is(
    error.message,
    'failed to open netns "/run/netns/gone": failed to Statfs "/run/netns/gone": no such file or directory',
  );
  cniError(8, () => openNamespace('/etc/passwd/below'));
});

test('a file that is no network namespace is error 8 with its magic number', () => {
  writeFileSync('/run/netns/leftover', '');
  const error = cniError(8, () => openNamespace('/run/netns/leftover'));
  assert.match(
    error.message,
    /^failed to open netns "\/run\/netns\/leftover": unknown FS magic on ".*": 1021994$/,
  );
  const mount = cniError(8, () => openNamespace('/proc/self/ns/mnt'));
  assert.match(mount.message, 'not a network namespace');
});

test('a FIFO at the path does not hang', () => {
  run('mkfifo', '/run/netns/pipe');
  cniError(8, () => openNamespace('/run/netns/pipe'));
  assert.is(isNetworkNamespace('/run/netns/pipe'), false);
});

test('findNamespace distinguishes a network namespace, nothing, and anything else', () => {
  mkdirSync('/run/states', { recursive: true });
  writeFileSync('/run/states/file', '');
  symlinkSync(one, '/run/states/link');
  symlinkSync('/nowhere', '/run/states/dangling');
  symlinkSync('/run/states/loop', '/run/states/loop');
  const unmounted = makeNamespace('unmounted');
  run('umount', unmounted);
  const states = (paths: readonly string[]): string[] =>
    paths.map((path) => {
      const found = findNamespace(path);
      if (found.is === 'open') found.namespace.close();
      return found.is;
    });
  assert.equal(
    new Set(states([one, '/run/states/link', '/proc/self/ns/net', `/proc/${process.pid}/ns/net`])),
    new Set(['open']),
  );
  assert.equal(
    new Set(states(['/nowhere', '/run/states/dangling', '/run/states/file/below', '/proc/4194304/ns/net'])),
    new Set(['absent']),
  );
  const others = ['/run/states/file', '/run/states/loop', '/run/states', '/proc/self/ns/uts', '/dev/zero'];
  assert.equal(
    new Set(states([...others, unmounted, `/run/${'x'.repeat(300)}`])),
    new Set(['not a network namespace']),
  );
});

test('isOwnNamespace goes by device and inode, not by path', () => {
  assert.ok(isOwnNamespace('/proc/self/ns/net'));
  assert.ok(isOwnNamespace(`/proc/${process.pid}/ns/net`));
  writeFileSync('/run/states-own', '');
  run('mount', '--bind', '/proc/self/ns/net', '/run/states-own');
  // mount ran as a child: it bound its own namespace, which is ours.
  assert.ok(isOwnNamespace('/run/states-own'));
  assert.not.ok(isOwnNamespace(one));
  assert.not.ok(isOwnNamespace('/nowhere'));
  assert.ok(inNamespace(one, () => isOwnNamespace(one)));
});

test('a namespace whose name was deleted is still usable through its descriptor', () => {
  const path = makeNamespace('brief');
  const opened = openNamespace(path);
  run('ip', 'netns', 'del', 'brief');
  assert.match(inNamespace(opened, here), /^net:\[\d+\]$/);
  assert.is(isNetworkNamespace(path), false);
  opened.close();
});

test('a process that cannot return says so and ends', () => {
  const script = `
    const { inNamespace } = await import(${JSON.stringify(NAMESPACE)});
    const fs = await import('node:fs');
    try {
      inNamespace(${JSON.stringify(one)}, () => {
        for (const fd of fs.readdirSync('/proc/self/fd')) {
          try {
            if (fs.readlinkSync('/proc/self/fd/' + fd) === ${JSON.stringify(home)}) fs.closeSync(Number(fd));
          } catch {}
        }
      });
    } finally {
      console.log('went on');
    }`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
  });
  assert.is(status, 1);
  assert.is(stdout, '');
  assert.match(stderr, "cannot return to the host's network namespace");
  assert.match(stderr, 'EBADF');
});

test('children started inside are in that namespace', () => {
  assert.is(
    inNamespace(one, () => run('readlink', '/proc/self/ns/net').trim()),
    `net:[${inode(one)}]`,
  );
});

test('a scratch namespace is empty, new, and left again, also by an error', () => {
  const inside = inScratchNamespace(() => ({
    name: here(),
    links: readdirSync('/proc/sys/net/ipv4/conf').sort(),
  }));
  assert.not.ok([home, `net:[${inode(one)}]`].includes(inside.name));
  assert.ok(!inside.links.includes('onlyhere') && inside.links.includes('lo'));
  assert.is(here(), home);
  assert.throws(
    () =>
      inScratchNamespace(() => {
        throw new Error('from inside');
      }),
    /from inside/,
  );
  assert.is(here(), home);
});

test.run();
