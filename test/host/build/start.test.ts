import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { nodeBase } from '../../../build/node-binary.mjs';
import { Elf, LayoutError } from '../../../build/elf.mjs';
import { useHugePages, useHugePagesForMalloc } from '../../../build/huge-pages.mjs';
import { disableDeadlockDetection } from '../../../build/node-patches.mjs';
import { reduceSymbolLookups } from '../../../build/dynamic-symbols.mjs';
import { stripElf } from '../../../build/strip.mjs';
import { executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';

/** What the build changes in Node so that it starts sooner: that it is in force, and that nothing else differs. */
const test = suite('build: a quick start', { limit: 60 });

const base = nodeBase(resolve(import.meta.dirname, '../../..'));
const refused = (part: string) => (error: unknown) =>
  error instanceof LayoutError && error.message.includes(part);
/** Written for x64 alone; elsewhere the build says so and leaves these out. */
const onX64 = (title: string, check: () => void): void => {
  if (process.arch === 'x64') test(title, check);
  else test.skip(title, `not written for ${process.arch}`);
};
const inBase = (script: string, ...args: string[]): string =>
  execFileSync(base.file, [...args, '-e', script], { encoding: 'utf8' });

test('nothing of it was left out', () => {
  assert.equal(base.notes, []);
});

onX64("V8's heap lies in one stretch for which huge pages are asked", () => {
  const stretch = markedHuge(inBase(SHOW_MEMORY), (mapping) => !mapping.includes('[heap]'));
  assert.ok(stretch > 0);
  // Reserved, aligned and trimmed by V8 here and there: never more than it was.
  assert.ok(stretch <= (32 + 2) * 1024, `${stretch} kB`);
});

onX64("so does malloc's", () => {
  const heap = markedHuge(inBase(SHOW_MEMORY), (mapping) => mapping.includes('[heap]'));
  assert.ok(heap > 7 * 1024 && heap <= 8 * 1024, `${heap} kB`);
});

onX64('what does not fit into the stretch is mapped as ever', () => {
  const script = `
    const hold = [];
    for (let i = 0; i < 60; i++) hold.push(Array.from({ length: 100_000 }, (_, at) => ({ at, i })));
    let sum = 0;
    for (const list of hold) for (const { at, i } of list) sum += at * i;
    console.log(JSON.stringify({ sum, rss: process.memoryUsage().rss }));`;
  const { sum, rss } = JSON.parse(inBase(script)) as { sum: number; rss: number };
  assert.is(sum, 4_999_950_000 * 1770);
  assert.ok(rss > 150e6, `${rss}`);
  // Pieces that V8 gave back would count if they were not unmapped.
  const plain = execFileSync(base.source, ['-e', script], { encoding: 'utf8' });
  assert.ok(rss < 1.5 * (JSON.parse(plain) as { rss: number }).rss, `${rss} bytes, ${plain}`);
});

onX64('threads take their pieces at the same time', () => {
  const script = `
    const { Worker } = require('node:worker_threads');
    const body = "let sum = 0; for (let i = 0; i < 40; i++) { const l = Array.from({ length: 50_000 }, (_, at) => ({ at })); for (const { at } of l) sum += at; } require('node:worker_threads').parentPort.postMessage(sum);";
    for (let i = 0; i < 6; i++) new Worker(body, { eval: true }).on('message', (sum) => console.log(sum));`;
  assert.is(inBase(script), '49999000000\n'.repeat(6));
});

test('a child process starts and ends', () => {
  assert.is(inBase("process.stdout.write(child_process.execFileSync('echo', ['hello']))"), 'hello\n');
});

test('Node creates no io_uring, where the one of npm does', () => {
  const script = 'setTimeout(() => undefined, 1)';
  const calls = (node: string): string => {
    const trace = join(mkdtempSync('/run/trace-'), 'trace');
    const { status } = spawnSync('strace', ['-f', '-o', trace, node, '-e', script]);
    assert.is(status, 0);
    return readFileSync(trace, 'utf8');
  };
  assert.match(calls(base.source), 'io_uring_setup');
  assert.not.match(calls(base.file), 'io_uring');
});

test("the host's configuration of OpenSSL does not reach a plugin", () => {
  const file = join(mkdtempSync('/run/openssl-'), 'openssl.cnf');
  for (const text of [
    '[broken\n',
    'nodejs_conf = x\n[x]\nproviders = y\n[y]\nz = z\n[z]\nmodule = /nowhere.so\nactivate = 1\n',
  ]) {
    writeFileSync(file, text);
    const env = { CNI_COMMAND: 'VERSION', OPENSSL_CONF: file };
    const { status, stdout, stderr } = spawnSync(executable('bridge'), {
      env,
      input: '{}',
      encoding: 'utf8',
    });
    assert.equal([status, stderr], [0, '']);
    assert.match(stdout, 'supportedVersions');
  }
});

test('SIGUSR1 opens no debugger', async () => {
  const env = {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: 'a',
    CNI_NETNS: '/nowhere',
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/',
  };
  const child = spawn(executable('bridge'), { env });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  let answer = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (answer += text));
  const ended = once(child, 'close');
  // By then it waits for its input, and a debugger's message would have arrived.
  await setTimeout(500);
  child.kill('SIGUSR1');
  await setTimeout(500);
  child.stdin.end('{}');
  const [code, signal] = (await ended) as [number | null, NodeJS.Signals | null];
  // The call goes on and ends with its own error, about the empty configuration.
  assert.equal([code, signal], [1, null]);
  assert.is((JSON.parse(answer) as { code: number }).code > 0, true);
  assert.not.match(said, 'ebugger');
});

onX64('libraries find in the binary what they found before, and look up less', () => {
  const [before, after] = [base.source, base.file].map(bindings);
  assert.ok((before?.length ?? 0) > 20);
  assert.equal(after, before);
});

onX64('binaries laid out differently are refused unchanged', () => {
  const original = readFileSync(base.source);
  const changes: [(elf: Elf) => void, string][] = [
    [disableDeadlockDetection, 'set to something else'],
    [reduceSymbolLookups, 'leaves no space'],
    [useHugePages, '0 relocations of type 7 against mmap64'],
    [useHugePagesForMalloc, 'begins somewhere else already'],
  ];
  for (const [change, reason] of changes) {
    const once = Buffer.from(original);
    change(new Elf(once));
    assert.not.ok(once.equals(original));
    const twice = Buffer.from(once);
    assert.throws(() => change(new Elf(twice)), refused(reason));
    assert.ok(twice.equals(once), reason);
  }
  assert.throws(() => disableDeadlockDetection(new Elf(stripElf(original))), refused('no symbol table'));
});

const SHOW_MEMORY = "process.stdout.write(fs.readFileSync('/proc/self/smaps'))";

/** kB of memory marked by MADV_HUGEPAGE ("hg"). */
function markedHuge(smaps: string, where: (mapping: string) => boolean): number {
  return smaps
    .split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)
    .filter((mapping) => where(mapping) && /^VmFlags:.* hg\b/m.test(mapping))
    .reduce((sum, mapping) => sum + Number(/^Size: +(\d+) kB/m.exec(mapping)?.[1]), 0);
}

/** Names that libraries were bound to in the program itself, as the loader tells. */
function bindings(file: string): string[] {
  const { stderr } = spawnSync(file, ['--version'], { env: { LD_DEBUG: 'bindings' }, encoding: 'utf8' });
  return stderr
    .split('\n')
    .filter((line) => line.includes(` to ${file} `) && !line.includes(`binding file ${file} `))
    .map((line) => /binding file (\S+) .*symbol `(\S+)'/.exec(line)?.slice(1).join(' ') ?? line)
    .sort();
}

test.run();
