import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  linkSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import manifest from '../../../package.json' with { type: 'json' };
import { nodeBase } from '../../../build/node-binary.mjs';
import { Elf } from '../../../build/elf.mjs';
import { SUITE_VERSION } from '../../../shared/cni/versions.ts';
import { executable, PLUGIN_NAMES } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';

const test = suite('build: the executable');

const base = nodeBase(resolve(import.meta.dirname, '../../..'));

test('all names are one file on disk, owned by one inode', () => {
  const inodes = [...PLUGIN_NAMES, 'weft' as const].map((name) => statSync(executable(name)).ino);
  assert.is(new Set(inodes).size, 1);
});

test('it is at most 8 MB larger than the stripped Node binary, and so much smaller than the one of npm', () => {
  const { size } = statSync(executable('bridge'));
  assert.ok(size <= statSync(base.file).size + 8_000_000, `${size} bytes`);
  assert.ok(size < statSync(base.source).size - 20_000_000);
});

test('every plugin says the version of package.json on stderr, and weft its own', () => {
  assert.is(SUITE_VERSION, manifest.version);
  for (const name of PLUGIN_NAMES) {
    const { status, stdout, stderr } = spawnSync(executable(name), ['--version'], {
      env: {},
      encoding: 'utf8',
    });
    assert.equal([status, stdout], [0, '']);
    assert.ok(stderr.startsWith(`CNI ${name} plugin v${manifest.version}\n`), stderr);
  }
  assert.is(
    execFileSync(executable('weft'), ['--version'], { encoding: 'utf8' }),
    `weft ${manifest.version}\n`,
  );
});

test('a hard link, a symbolic link and a forged name choose the plugin; an unknown name is no plugin', () => {
  const folder = mkdtempSync(`${executable('bridge')}-`.replace(/[^/]*$/, '.names-'));
  try {
    linkSync(executable('weft'), join(folder, 'portmap'));
    symlinkSync(executable('weft'), join(folder, 'firewall'));
    linkSync(executable('weft'), join(folder, 'tuning'));
    const said = (file: string, argv0 = file): string =>
      spawnSync(file, { env: {}, argv0, encoding: 'utf8' }).stderr;
    assert.match(said(join(folder, 'portmap')), 'CNI portmap plugin v');
    assert.match(said(join(folder, 'firewall')), 'CNI firewall plugin v');
    assert.match(said(join(folder, 'firewall'), 'loopback'), 'CNI loopback plugin v');
    assert.match(said(join(folder, 'tuning')), 'weft: unknown plugin "tuning"');
    assert.is(spawnSync(join(folder, 'tuning'), { env: {} }).status, 1);
  } finally {
    execFileSync('rm', ['-r', folder]);
  }
});

test('NODE_OPTIONS and other variables of Node change nothing', () => {
  const hostile: Record<string, string>[] = [
    { NODE_OPTIONS: '--require=/nope' },
    { NODE_OPTIONS: '--inspect=127.0.0.1:9229 --max-old-space-size=1' },
    { NODE_OPTIONS: '--no-such-option' },
    { NODE_EXTRA_CA_CERTS: '/nope', NODE_ICU_DATA: '/nope' },
    {
      OPENSSL_CONF: '/nope',
      SSL_CERT_FILE: '/nope',
      NODE_REDIRECT_WARNINGS: '/run/warnings',
      NODE_PENDING_DEPRECATION: '1',
    },
    { NODE_CHANNEL_FD: '3', NODE_USE_ENV_PROXY: '1', NODE_DEBUG: '*' },
  ];
  for (const env of hostile) {
    const { status, stdout, stderr } = spawnSync(executable('bridge'), { env, encoding: 'utf8' });
    assert.equal(
      [status, stdout, stderr.split('\n')[0]],
      [0, '', `CNI bridge plugin v${manifest.version}`],
      JSON.stringify(env),
    );
    assert.is(stderr.split('\n').length, 3, stderr);
  }
  assert.not(existsSync('/run/warnings'));
});

test('arguments are not options of Node', () => {
  for (const argv of [
    ['--version'],
    ['-e', 'process.exit(3)'],
    ['--inspect'],
    ['-p', '1'],
    ['--v8-options'],
  ]) {
    const { status, stderr } = spawnSync(executable('bridge'), argv, { env: {}, encoding: 'utf8' });
    assert.is(status, 0);
    assert.match(stderr, 'CNI bridge plugin v');
  }
});

test('it runs where nothing can be written: no HOME, a read-only root, no /tmp', () => {
  // A checkout that lies in /tmp would be hidden with it; there the read-only root has to do.
  const hideTmp = executable('bridge').startsWith('/tmp/') ? '' : 'mount -t tmpfs -o ro none /tmp && ';
  const script = `mount -o remount,ro,bind / && ${hideTmp}exec "$0"`;
  const { status, stderr } = spawnSync('unshare', ['-m', 'sh', '-c', script, executable('bridge')], {
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    encoding: 'utf8',
  });
  assert.is(status, 0, stderr);
  assert.match(stderr, 'CNI bridge plugin v');
});

test('strip refuses it, since it would cut off the application', () => {
  const file = openSync(executable('bridge'), 'r');
  const header = Buffer.alloc(4096);
  readSync(file, header);
  closeSync(file);
  assert.equal([header.readBigUInt64LE(40), header.readUInt16LE(60)], [0n, 0], 'no section headers');
});

test('no path of the building machine is in it', () => {
  const content = readFileSync(executable('bridge'));
  assert.is(new Elf(content).segments().length > 0, true);
  for (const trace of [resolve(import.meta.dirname, '../../..'), '/tmp/pkg-sea']) {
    const found = content.indexOf(trace, statSync(base.file).size);
    assert.is(found, -1, `${trace} at ${found}: ${content.toString('latin1', found - 40, found + 80)}`);
  }
});

test.run();
