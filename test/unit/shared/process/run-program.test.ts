import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import * as assert from 'uvu/assert';
import { findProgram, RunError, runProgram } from '../../../../shared/process/run-program.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('process: run');
const folder = mkdtempSync('/tmp/weft-run-');
const timeoutMs = 10_000;
test.after(() => rmSync(folder, { recursive: true }));

function script(name: string, body: string, mode = 0o755): string {
  const file = `${folder}/${name}`;
  writeFileSync(file, `#!/bin/sh\n${body}\n`);
  chmodSync(file, mode);
  return file;
}

function failure(run: () => unknown): RunError {
  try {
    run();
  } catch (thrown) {
    if (thrown instanceof RunError) return thrown;
    throw thrown;
  }
  throw new Error('nothing was thrown');
}

test('output and exit code are returned unchanged; a non-zero code is no error', () => {
  const file = script('answer', 'printf "out\\n\\n"; printf "err\\n" >&2; exit 3');
  assert.equal(runProgram(file, [], { timeoutMs }), { exitCode: 3, stdout: 'out\n\n', stderr: 'err\n' });
});

test('arguments and stdin are passed unchanged', () => {
  const file = script('echo', 'printf "%s|" "$@"; cat');
  const { stdout } = runProgram(file, ['a b', '$HOME', '*'], { timeoutMs, input: 'ä\n{"x": 1}' });
  assert.is(stdout, 'a b|$HOME|*|ä\n{"x": 1}');
});

test("without input stdin is empty, not the caller's", () => {
  assert.is(runProgram(script('cat', 'cat'), [], { timeoutMs }).stdout, '');
});

test('a program may leave its input unread', () => {
  const { exitCode } = runProgram('/bin/true', [], { timeoutMs, input: 'x'.repeat(4_000_000) });
  assert.is(exitCode, 0);
});

test('a large output is returned whole', () => {
  const { stdout } = runProgram('/usr/bin/head', ['-c', '5000000', '/dev/zero'], { timeoutMs });
  assert.is(stdout.length, 5_000_000);
});

test('the environment is exactly as given', () => {
  const { stdout } = runProgram('/usr/bin/env', [], { timeoutMs, env: { ONE: '1', NONE: undefined } });
  assert.is(stdout, 'ONE=1\n');
});

test('a large input goes through a program that answers before it has read all', () => {
  const input = 'weft\n'.repeat(2_000_000);
  assert.is(runProgram('/bin/cat', [], { timeoutMs, input }).stdout, input);
});

test('no signal is ignored or blocked', () => {
  const { stdout } = runProgram('/bin/grep', ['^Sig', '/proc/self/status'], { timeoutMs });
  assert.match(stdout, /^SigBlk:\t0{16}\nSigIgn:\t0{16}\n/m);
});

test("a program has none of the caller's descriptors that are close-on-exec, as Node opens all", () => {
  const opened = openSync(folder, 'r');
  const { stdout } = runProgram('/bin/ls', ['-l', '/proc/self/fd'], { timeoutMs });
  closeSync(opened);
  assert.match(stdout, / 2 -> /);
  assert.not.match(stdout, folder);
});

test('a program that closes its output and goes on is waited for', () => {
  const file = script('silent', 'exec >&- 2>&-; sleep 0.2; exit 4');
  assert.is(runProgram(file, [], { timeoutMs }).exitCode, 4);
});

test('nothing is left of a program: no descriptor, no child', () => {
  const children = () => readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8');
  const before = [readdirSync('/proc/self/fd').length, children()];
  runProgram('/bin/true', [], { timeoutMs });
  failure(() => runProgram('/bin/sleep', ['100'], { timeoutMs: 50 }));
  failure(() => runProgram(`${folder}/none`, [], { timeoutMs }));
  assert.equal([readdirSync('/proc/self/fd').length, children()], before);
});

test('a program that prints more than 64 MiB is killed', () => {
  const error = failure(() => runProgram('/bin/cat', ['/dev/zero'], { timeoutMs }));
  assert.is(error.failure, 'output');
  assert.match(error.message, '/bin/cat printed more than 64 MiB and was killed');
});

test('a program that does not end is killed, even when its child holds the output', () => {
  const began = Date.now();
  const {
    failure: kind,
    code,
    message,
  } = failure(() =>
    runProgram(script('hang', 'echo waiting >&2; sleep 100 & sleep 100'), [], { timeoutMs: 300 }),
  );
  assert.ok(Date.now() - began < 5000);
  assert.is(kind, 'timeout');
  assert.is(code, 11);
  assert.match(message, /^timed out after 0\.\d s waiting for .*\/hang to end, and killed it$/);
});

test('a program killed by a signal is an error', () => {
  const error = failure(() =>
    runProgram(script('die', 'echo last words >&2; kill -SEGV $$'), [], { timeoutMs }),
  );
  assert.is(error.failure, 'signal');
  assert.match(error.message, 'SIGSEGV');
  assert.match(error.details ?? '', 'last words');
});

test('missing, not executable and busy programs are distinguished', () => {
  assert.is(failure(() => runProgram(`${folder}/none`, [], { timeoutMs })).failure, 'missing');
  assert.is(failure(() => runProgram(script('plain', '', 0o644), [], { timeoutMs })).failure, 'denied');
  writeFileSync(`${folder}/busy`, readFileSync('/bin/true'), { mode: 0o755 });
  const held = openSync(`${folder}/busy`, 'r+');
  assert.is(failure(() => runProgram(`${folder}/busy`, [], { timeoutMs })).failure, 'busy');
  closeSync(held);
  writeFileSync(`${folder}/other`, 'neither ELF nor #!', { mode: 0o755 });
  const other = failure(() => runProgram(`${folder}/other`, [], { timeoutMs }));
  assert.is(
    other.message,
    `cannot run ${folder}/other: neither a program of this architecture nor a script with #!`,
  );
  assert.is(runProgram(`${folder}/busy`, [], { timeoutMs }).exitCode, 0);
});

test('works in a deleted directory', () => {
  const before = process.cwd();
  mkdirSync(`${folder}/gone`);
  process.chdir(`${folder}/gone`);
  rmSync(`${folder}/gone`, { recursive: true });
  try {
    assert.is(runProgram('/bin/pwd', [], { timeoutMs }).stdout, '/\n');
  } finally {
    process.chdir(before);
  }
});

test('programs are found in PATH first, then in the usual directories; never in the working directory', () => {
  const file = script('ip', '');
  assert.is(findProgram('ip', `/nowhere:${folder}`), file);
  assert.match(findProgram('ip', '/nowhere') ?? '', /^\/(usr\/)?s?bin\/ip$/);
  assert.match(findProgram('ip', '') ?? '', /^\/(usr\/)?s?bin\/ip$/);
  assert.is(findProgram('no-such-program-anywhere'), undefined);
  script('not-executable', '', 0o644);
  assert.is(findProgram('not-executable', folder), undefined);
  mkdirSync(`${folder}/folder`);
  assert.is(findProgram('folder', folder), undefined);
  process.chdir(folder);
  assert.is(findProgram('hang', '.:'), undefined);
  process.chdir('/');
});

test.run();
