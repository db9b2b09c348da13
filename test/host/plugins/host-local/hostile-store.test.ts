import { execFileSync } from 'node:child_process';
import {
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import * as assert from 'uvu/assert';
import { fail, runPluginProcess, succeed, variables, type Attachment } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { add, addresses, attachment, configFor, leases, newDataDir, type Ips } from './calls.ts';

const test = suite('host-local, the executable: damaged and hostile stores', { limit: 240 });

/** What can stand at a path instead of the store's own file. `victim` must not change. */
const OBSTACLES: Readonly<Record<string, (path: string, victim: string) => void>> = {
  'a symbolic link to a file': (path, victim) => symlinkSync(victim, path),
  'a symbolic link to nothing': (path, victim) => symlinkSync(`${victim}.missing`, path),
  'a symbolic link to an endless device': (path) => symlinkSync('/dev/zero', path),
  'a hard link to a file': (path, victim) => linkSync(victim, path),
  'a FIFO': (path) => execFileSync('mkfifo', [path]),
  'a device': (path) => execFileSync('mknod', [path, 'c', '1', '5']),
  'an empty folder': (path) => mkdirSync(path),
  'a folder with a file': (path) => {
    mkdirSync(path);
    writeFileSync(`${path}/kept`, 'kept');
  },
};

/** Paths of a store `net` in dataDir that a call writes to. */
const FILES: Readonly<Record<string, string>> = {
  lock: 'net/lock',
  'last_reserved_ip.0': 'net/last_reserved_ip.0',
  'the temporary file beside the store': '.weft-net.tmp',
  'a lease': 'net/10.1.2.2',
};

for (const [what, file] of Object.entries(FILES)) {
  test(`in place of ${what}: ADD, CHECK and DEL succeed and nothing else changes`, () => {
    for (const [kind, put] of Object.entries(OBSTACLES)) {
      const dataDir = newDataDir();
      mkdirSync(`${dataDir}/net`);
      const victim = `${mkdtempSync('/run/victim-')}/file`;
      writeFileSync(victim, 'victim\r\neth0');
      put(`${dataDir}/${file}`, victim);
      const config = configFor(dataDir);
      const result = what === 'lock' ? addReportingLock(config, `${dataDir}/net/lock`) : add(config);
      const isTaken = what === 'a lease';
      assert.equal(addresses(result), [isTaken ? '10.1.2.3/24' : '10.1.2.2/24'], kind);
      succeed('host-local', 'CHECK', attachment, { ...config, prevResult: result });
      succeed('host-local', 'DEL', attachment, config);
      assert.not(leases(dataDir).includes(isTaken ? '10.1.2.3' : '10.1.2.2'), kind);
      assert.is(readFileSync(victim, 'utf8'), 'victim\r\neth0', kind);
      assert.equal(readdirSync(victim.replace(/\/file$/, '')), ['file'], kind);
      add({ ...config }, { ...attachment, id: 'next' });
    }
  });
}

test('in place of both temporary files: a clear error, once they are folders that are not empty', () => {
  const dataDir = newDataDir();
  for (const path of [`${dataDir}/.weft-net.tmp`, `${dataDir}/net/.weft.tmp`]) {
    mkdirSync(path, { recursive: true });
    writeFileSync(`${path}/kept`, '');
  }
  const error = fail('host-local', 'ADD', attachment, configFor(dataDir));
  assert.is(error.code, 5);
  assert.match(
    error.details ?? '',
    `neither ${dataDir}/.weft-net.tmp nor ${dataDir}/net/.weft.tmp can be used`,
  );
  assert.equal(leases(dataDir), []);
});

test('in place of the index of a large store: all verbs read the lease files instead', () => {
  const index = (store: string): string => {
    const { dev, ino } = statSync(store);
    return `/run/weft/ipam/${dev.toString(16)}-${ino.toString(16)}`;
  };
  const damage: Record<string, (path: string, victim: string) => void> = {
    ...OBSTACLES,
    'a sparse file of 48 GB': (path) => {
      writeFileSync(path, header(2 ** 30));
      truncateSync(path, 64 + 48 * 2 ** 30);
    },
  };
  for (const [kind, put] of Object.entries(damage)) {
    const { dataDir, victim } = largeStore();
    const file = index(`${dataDir}/net`);
    execFileSync('rm', ['-f', file]);
    put(file, victim);
    verifyLargeStore(dataDir, kind);
    assert.is(readFileSync(victim, 'utf8'), 'victim', kind);
  }
});

test('an index whose slots are all used, or random: all verbs read the lease files instead', () => {
  for (const filling of ['used', 'random']) {
    const { dataDir } = largeStore();
    const config = configFor(dataDir);
    add(config, { ...attachment, id: 'index' });
    const { dev, ino } = statSync(`${dataDir}/net`);
    const file = `/run/weft/ipam/${dev.toString(16)}-${ino.toString(16)}`;
    const bytes = readFileSync(file);
    for (let at = 64; at < bytes.length; at++)
      bytes[at] = filling === 'used' ? 7 : Math.floor(Math.random() * 256);
    // The header with the seal of the store stays valid.
    writeFileSync(file, bytes);
    succeed('host-local', 'DEL', { ...attachment, id: 'index' }, config);
    assert.not(leases(dataDir).includes('10.1.2.42'), filling);
    verifyLargeStore(dataDir, filling);
  }
});

test('a resolvConf that is a FIFO, endless, a folder or too large: code 5 at once, nothing reserved', () => {
  const folder = mkdtempSync('/run/resolv-');
  execFileSync('mkfifo', [`${folder}/fifo`]);
  writeFileSync(`${folder}/large`, '');
  truncateSync(`${folder}/large`, 3 * 2 ** 30);
  for (const resolvConf of [`${folder}/fifo`, '/dev/zero', folder, `${folder}/large`]) {
    const dataDir = newDataDir();
    const error = fail(
      'host-local',
      'ADD',
      attachment,
      configFor(dataDir, { subnet: '10.1.2.0/24', resolvConf }),
    );
    assert.is(error.code, 5, resolvConf);
    assert.match(error.msg, resolvConf);
    assert.equal(readdirSync(dataDir), []);
  }
});

test('container ids of any length: DEL releases what ADD reserved', () => {
  for (const length of [4_080, 4_096, 5_000, 100_000]) {
    const dataDir = newDataDir();
    const config = configFor(dataDir);
    const long: Attachment = { ...attachment, id: 'c'.repeat(length) };
    assert.equal(addresses(add(config, long)), ['10.1.2.2/24']);
    assert.equal(addresses(add(config, long)), ['10.1.2.2/24']);
    succeed('host-local', 'DEL', long, config);
    assert.equal(leases(dataDir), [], `${length} characters`);
  }
});

test('DEL with a configuration that ADD rejects releases the lease', () => {
  const edits: object[] = [
    { ranges: 'x' },
    { ranges: [[{ subnet: 5 }]] },
    { ranges: [[{ subnet: '10.1.2.3/24' }]] },
    { routes: [{ dst: 'x' }] },
    { resolvConf: 7 },
    { subnet: '10.1.2.0/24', ranges: [[{ subnet: '10.1.2.0/24' }]] },
  ];
  for (const edit of edits) {
    const dataDir = newDataDir();
    add(configFor(dataDir));
    fail('host-local', 'ADD', { ...attachment, id: 'other' }, configFor(dataDir, edit));
    succeed('host-local', 'DEL', attachment, configFor(dataDir, edit));
    assert.equal(leases(dataDir), [], JSON.stringify(edit));
  }
  const whole = { cniVersion: '1.1.0', name: 'net', type: 'host-local' };
  const ipam = { type: 'host-local', subnet: '10.1.2.0/24' };
  for (const edited of [{ ipam: 'x' }, { ipam: { ...ipam, dataDir: 5 } }, { ipam: [ipam] }, {}]) {
    add({ ...whole, ipam });
    fail('host-local', 'ADD', { ...attachment, id: 'other' }, { ...whole, ...edited });
    succeed('host-local', 'DEL', attachment, { ...whole, ...edited });
    assert.not(exists('/var/lib/cni/networks/net/10.1.2.2'), JSON.stringify(edited));
    execFileSync('rm', ['-rf', '/var/lib/cni/networks/net']);
  }
});

test('300 equal ranges: the error is a screenful and comes at once, and DEL releases the lease', () => {
  const dataDir = newDataDir();
  add(configFor(dataDir));
  const range = { subnet: '10.1.2.0/24' };
  const config = configFor(dataDir, { ranges: [Array.from({ length: 300 }, () => range)] });
  const start = Date.now();
  const { code, msg } = fail('host-local', 'ADD', { ...attachment, id: 'other' }, config);
  assert.is(code, 7);
  assert.match(msg, /; and \d+ more$/);
  assert.ok(msg.length < 3_000, msg);
  succeed('host-local', 'DEL', attachment, config);
  assert.ok(Date.now() - start < 10_000);
  assert.equal(leases(dataDir), []);
});

test('DEL after dataDir was changed releases the lease where the cached result says', () => {
  const [before, after] = [newDataDir(), newDataDir()];
  add(configFor(before));
  const list = { name: 'net', plugins: [{ type: 'bridge', ipam: { type: 'host-local', dataDir: before } }] };
  const config = Buffer.from(JSON.stringify(list)).toString('base64');
  mkdirSync('/var/lib/cni/results', { recursive: true });
  writeFileSync(
    '/var/lib/cni/results/net-cont1-eth0',
    JSON.stringify({ kind: 'cniCacheV1', containerId: 'cont1', ifName: 'eth0', networkName: 'net', config }),
  );
  succeed('host-local', 'DEL', attachment, configFor(after));
  assert.equal(leases(before), []);
  execFileSync('rm', ['-rf', '/var/lib/cni/results']);
});

test.run();

function header(capacity: number): Buffer {
  const bytes = Buffer.alloc(64);
  bytes.write('WEFTIPM1');
  bytes.writeUInt32LE(capacity, 8);
  return bytes;
}

/** 40 leases, 10.1.2.2 to 10.1.2.41: an index is kept from 32 on. */
function largeStore(): { dataDir: string; victim: string } {
  const dataDir = newDataDir();
  const victim = `${mkdtempSync('/run/victim-')}/file`;
  writeFileSync(victim, 'victim');
  mkdirSync(`${dataDir}/net`);
  for (let at = 2; at < 42; at++) writeFileSync(`${dataDir}/net/10.1.2.${at}`, `base${at}\r\neth0`);
  writeFileSync(`${dataDir}/net/last_reserved_ip.0`, '10.1.2.41');
  add(configFor(dataDir), { ...attachment, id: 'first' });
  succeed('host-local', 'DEL', { ...attachment, id: 'first' }, configFor(dataDir));
  writeFileSync(`${dataDir}/net/last_reserved_ip.0`, '10.1.2.41');
  return { dataDir, victim };
}

function verifyLargeStore(dataDir: string, kind: string): void {
  const config = configFor(dataDir);
  const [first] = addresses(add(config));
  assert.match(first ?? '', /^10\.1\.2\.(4[2-9]|\d{3})\/24$/, kind);
  assert.equal(addresses(add(config)), [first], kind);
  assert.equal(addresses(add(config, { ...attachment, id: 'base7' })), ['10.1.2.7/24'], kind);
  for (const id of ['cont1', 'base7']) succeed('host-local', 'DEL', { ...attachment, id }, config);
  assert.is(leases(dataDir).length, 39, kind);
}

/** The first call replaces the lock and says so on stderr; later calls are silent. */
function addReportingLock(config: object, lock: string): Ips {
  const isFile = lstatSync(lock).isFile();
  const env = { ...variables(attachment), CNI_COMMAND: 'ADD' };
  const { exitCode, stdout, stderr } = runPluginProcess('host-local', { env, stdin: config });
  assert.is(exitCode, 0, stdout);
  assert.is(stderr, isFile ? '' : `host-local: ${lock}: not a regular file; replaced\n`);
  return JSON.parse(stdout) as Ips;
}

function exists(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
