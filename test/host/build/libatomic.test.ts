import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { nodeBase } from '../../../build/node-binary.mjs';
import { DT, Elf, LayoutError } from '../../../build/elf.mjs';
import { withoutLibatomic } from '../../../build/libatomic.mjs';
import { executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';
import { copiesOf, librariesOf, makeMinimalHost, RUNTIME_LIBRARIES } from './minimal-host.ts';

const test = suite('build: libatomic', { limit: 60 });

const base = nodeBase(resolve(import.meta.dirname, '../../..'));
/** A configuration that makes a bridge, a veth pair, an address and a lease. */
const CONFIG = JSON.stringify({
  cniVersion: '1.0.0',
  name: 'nomad',
  type: 'bridge',
  bridge: 'nomad',
  isGateway: true,
  ipam: { type: 'host-local', ranges: [[{ subnet: '172.26.64.0/20' }]], dataDir: '/var/run/cni' },
});
const CALL = {
  CNI_CONTAINERID: 'c1',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin',
  CNI_NETNS: '/run/netns/c1',
};

if (process.arch === 'x64') {
  onX64();
} else {
  test.skip('the x64 patch', `this machine is ${process.arch}`);
}
test.run();

function onX64(): void {
  test('the loader is asked for glibc, libstdc++ and libgcc_s, and for nothing else', () => {
    assert.equal([...librariesOf(executable('bridge')).keys()].sort(), RUNTIME_LIBRARIES);
    assert.ok(
      needed(base.source).includes('libatomic.so.1'),
      'the Node of npm needs it; else the patch can go',
    );
    assert.not.ok(needed(base.file).includes('libatomic.so.1'));
  });

  test('where libatomic is missing, the Node of npm does not start and ours does', () => {
    const copies = copiesOf('libatomic.so');
    for (const file of copies) execFileSync('mount', ['--bind', '/dev/null', file]);
    try {
      const theirs = spawnSync(base.source, ['-e', '0'], { encoding: 'utf8' });
      assert.is(theirs.status, 127);
      assert.match(theirs.stderr, 'libatomic.so.1');
      assert.is(spawnSync(base.file, ['-e', '0']).status, 0);
      assert.match(
        spawnSync(executable('bridge'), { encoding: 'utf8', env: {} }).stderr,
        'CNI bridge plugin v',
      );
    } finally {
      for (const file of copies) execFileSync('umount', [file]);
    }
  });

  test('on a host of seven libraries, a kernel and nothing else, bridge does ADD, CHECK and DEL', () => {
    const root = mkdtempSync('/run/minimal-');
    makeMinimalHost(root);
    execFileSync('mount', ['-t', 'proc', 'proc', join(root, 'proc')]);
    execFileSync('ip', ['netns', 'add', 'c1']);
    execFileSync('touch', [join(root, 'run/netns/c1')]);
    execFileSync('mount', ['--bind', '/run/netns/c1', join(root, 'run/netns/c1')]);
    const bridge = (command: string, input = CONFIG): string => {
      const { status, stdout, stderr } = spawnSync('/usr/sbin/chroot', [root, '/opt/cni/bin/bridge'], {
        env: { ...CALL, CNI_COMMAND: command },
        input,
        encoding: 'utf8',
      });
      assert.is(status, 0, `${command}: ${stdout}${stderr}`);
      return stdout;
    };
    const result: unknown = JSON.parse(bridge('ADD'));
    assert.match(
      execFileSync('ip', ['-n', 'c1', 'addr', 'show', 'eth0'], { encoding: 'utf8' }),
      '172.26.64.2/20',
    );
    bridge('CHECK', JSON.stringify({ ...(JSON.parse(CONFIG) as object), prevResult: result }));
    bridge('DEL');
    assert.not.ok(existsSync(join(root, 'var/run/cni/nomad/172.26.64.2')));
    assert.is(spawnSync('ip', ['-n', 'c1', 'link', 'show', 'eth0']).status, 1);
  });

  test('the stub exchanges what is expected and reports what is not, in every size', () => {
    const node = withStubExported();
    for (const size of [1, 2, 4, 8, 16]) {
      const found = Buffer.alloc(16, 0x11);
      const other = Buffer.alloc(16, 0x22);
      const wish = Buffer.alloc(16, 0x33);
      const replaced = (target: Buffer, source: Buffer): string =>
        Buffer.concat([source.subarray(0, size), target.subarray(size)]).toString('hex');
      assert.equal(
        callStub(node, size, found, found, wish),
        { result: 1, object: replaced(found, wish), expected: found.toString('hex') },
        `success, ${size} bytes`,
      );
      assert.equal(
        callStub(node, size, found, other, wish),
        { result: 0, object: found.toString('hex'), expected: replaced(other, found) },
        `failure, ${size} bytes`,
      );
      const lastByte = Buffer.from(found);
      lastByte[size - 1] = 0x44;
      assert.is(callStub(node, size, found, lastByte, wish).result, 0, `the last of ${size} bytes counts`);
    }
  });

  test('the stub ends the process for a size that no machine exchanges', () => {
    assert.throws(
      () => callStub(withStubExported(), 3, Buffer.alloc(16), Buffer.alloc(16), Buffer.alloc(16)),
      /SIGILL/,
    );
  });

  test('a binary laid out otherwise is refused and left as it was', () => {
    const original = readFileSync(base.source);
    const damages: Record<string, (elf: Elf) => void> = {
      'not linked BIND_NOW': (elf) => elf.setU64(elf.dynamicEntry(DT.FLAGS).at + 8, 0),
      'needed without a version': (elf) => elf.setU64(elf.dynamicEntry(DT.VERNEEDNUM).at + 8, 0),
      'space for the stub is in use': (elf) => {
        const text = elf.segments().find(({ flags, type }) => type === 1 && (flags & 1) === 1);
        elf.bytes[(text?.offset ?? 0) + (text?.fileSize ?? 0) + 8] = 1;
      },
      'no stub is written for machine 8': (elf) => elf.bytes.writeUInt16LE(8, 18),
    };
    for (const [message, damage] of Object.entries(damages)) {
      const elf = new Elf(Buffer.from(original));
      damage(elf);
      const before = Buffer.from(elf.bytes);
      assert.throws(
        () => withoutLibatomic(elf),
        (error: unknown) => error instanceof LayoutError && error.message.includes(message),
      );
      assert.ok(before.equals(elf.bytes), `${message}: nothing was changed`);
    }
  });
}

function needed(file: string): string[] {
  const elf = new Elf(readFileSync(file));
  return elf
    .dynamic()
    .filter(({ tag }) => tag === DT.NEEDED)
    .map(({ value }) => elf.dynamicString(value));
}

/** The prepared Node in which a function that anyone can look up lies where the stub is, so that node:ffi can call it in its place. */
function withStubExported(): string {
  const file = '/run/stub/node';
  if (existsSync(file)) return file;
  const elf = new Elf(readFileSync(base.file));
  elf.setU64(findExport(elf, EXPORT) + 8, base.stubAddress ?? 0);
  letEveryNamePass(elf);
  mkdirSync('/run/stub', { recursive: true });
  writeFileSync(file, elf.bytes, { mode: 0o755 });
  return file;
}

/** The filter in front of the table of exported names (lookups.mjs), | nbuckets u32 | symoffset u32 | words u32 | shift u32 | u64[words] |. */
function letEveryNamePass(elf: Elf): void {
  const at = elf.offsetOf(elf.dynamicEntry(DT.GNU_HASH).value);
  elf.bytes.fill(0xff, at + 16, at + 16 + 8 * elf.bytes.readUInt32LE(at + 8));
}

/** A function of ICU that Node does not call and whose place in the symbol table does not matter. */
const EXPORT = 'u_setAtomicIncDecFunctions_78';

/** Elf64_Sym: 0 st_name u32 | 4 info, other | 6 st_shndx u16 | 8 st_value u64 | 16 st_size u64; the string table follows the symbols. */
function findExport(elf: Elf, name: string): number {
  const from = elf.offsetOf(elf.dynamicEntry(DT.SYMTAB).value);
  const strings = elf.offsetOf(elf.dynamicEntry(DT.STRTAB).value);
  for (let at = from; at < strings; at += 24) {
    const text = strings + elf.bytes.readUInt32LE(at);
    if (elf.bytes.toString('latin1', text, text + name.length + 1) === `${name}\0`) return at;
  }
  throw new Error(`${name} is not exported`);
}

interface Exchange {
  result: number;
  /** Hexadecimal, 16 bytes. */
  object: string;
  expected: string;
}

function callStub(node: string, size: number, object: Buffer, expected: Buffer, desired: Buffer): Exchange {
  const script = `
    const [size, ...hex] = process.argv.slice(1);
    // A page of its own is aligned for cmpxchg16b.
    const [object, expected, desired] = hex.map((text) => { const b = Buffer.from(new ArrayBuffer(4096)); b.write(text, 'hex'); return b; });
    const types = { arguments: ['uint64', 'buffer', 'buffer', 'buffer', 'int32', 'int32'], return: 'uint8' };
    const call = require('node:ffi').dlopen(null, { ${EXPORT}: types }).functions.${EXPORT};
    const result = call(BigInt(size), object, expected, desired, 5, 5);
    const show = (b) => b.subarray(0, 16).toString('hex');
    console.log(JSON.stringify({ result: Number(result), object: show(object), expected: show(expected) }));`;
  const hex = [object, expected, desired].map((buffer) => buffer.toString('hex'));
  const { stdout, stderr, signal } = spawnSync(node, ['--no-warnings', '-e', script, String(size), ...hex], {
    encoding: 'utf8',
  });
  if (signal !== null) throw new Error(signal);
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as Exchange;
}
