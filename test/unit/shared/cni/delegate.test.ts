import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  closeSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { spawn } from 'node:child_process';
import * as assert from 'uvu/assert';
import { delegate, delegateAdd, findPlugin, type DelegateCall } from '../../../../shared/cni/delegate.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

/** Other vendors' plugins are stood in for by shell scripts, which are as foreign as a program can be. */
const test = suite('cni: delegate');
const folder = mkdtempSync('/tmp/weft-delegate-');
const other = mkdtempSync('/tmp/weft-delegate-');
test.after(() => {
  rmSync(folder, { recursive: true });
  rmSync(other, { recursive: true });
});

const STDIN = '{"cniVersion":"1.0.0",  "name":"n", "ipam":{"type":"x", "ü":1.50}}';

let warnings: string[] = [];
function call(change: Partial<DelegateCall> = {}): DelegateCall {
  warnings = [];
  return {
    command: 'ADD',
    path: [folder],
    stdin: STDIN,
    environment: { CNI_COMMAND: 'ADD', CNI_ARGS: 'A=1', PATH: '/usr/bin:/bin', NONE: undefined },
    cniVersion: '1.0.0',
    warn: (line) => warnings.push(line),
    ...change,
  };
}

function ipam(name: string, body: string, mode = 0o755): string {
  const file = `${folder}/${name}`;
  writeFileSync(file, `#!/bin/sh\n${body}\n`);
  chmodSync(file, mode);
  return name;
}

test('the same bytes on stdin, the same environment but for the verb', () => {
  ipam('recorder', `cat > ${other}/stdin; env | sort > ${other}/env; echo '{}'`);
  delegateAdd('recorder', call());
  assert.is(readFileSync(`${other}/stdin`, 'utf8'), STDIN);
  const environment = readFileSync(`${other}/env`, 'utf8')
    .split('\n')
    .filter((line) => !/^(PWD|OLDPWD|SHLVL|_|NODE_V8_COVERAGE)=|^$/.test(line));
  assert.equal(environment, ['CNI_ARGS=A=1', 'CNI_COMMAND=ADD', 'PATH=/usr/bin:/bin']);
  for (const verb of ['DEL', 'CHECK', 'GC', 'STATUS'] as const) {
    delegate('recorder', verb, call());
    assert.match(readFileSync(`${other}/env`, 'utf8'), `CNI_COMMAND=${verb}\n`);
    assert.is(readFileSync(`${other}/stdin`, 'utf8'), STDIN);
  }
});

test('the result is read in the version of the one who made it', () => {
  const say = (document: string): unknown => delegateAdd(ipam('say', `echo '${document}'`), call()).ips;
  const expected = [{ address: '10.0.0.2/24', gateway: '10.0.0.1' }];
  assert.equal(say('{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24","gateway":"10.0.0.1"}}'), expected);
  assert.equal(
    say(
      '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.2/24","gateway":"10.0.0.1"}],"dns":{}}',
    ),
    expected,
  );
  assert.equal(
    say('{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1"}]}'),
    expected,
  );
  assert.equal(say('{"ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1"}]}'), expected);
});

test('null is an empty result; nothing and garbage are errors', () => {
  assert.equal(delegateAdd(ipam('null', 'echo null'), call()), {
    interfaces: [],
    ips: [],
    routes: [],
    dns: {},
  });
  for (const body of [':', 'echo text', "echo '{} {}'", 'echo 5', `echo '{"ips":[{"address":"x"}]}'`]) {
    const error = thrown(() => delegateAdd(ipam('garbage', body), call()));
    assert.is(error.code, 6);
    assert.match(error.message, 'invalid result of garbage');
  }
  assert.is(thrown(() => delegateAdd(ipam('future', `echo '{"cniVersion":"9.0.0"}'`), call())).code, 1);
});

test('an error keeps its code, message and details', () => {
  const body = `echo '{"cniVersion":"0.4.0","code":104,"msg":"the pool is \\"dry\\"","details":"d"}'; echo noise >&2; exit 1`;
  const error = thrown(() => delegateAdd(ipam('dry', body), call()));
  assert.equal([error.code, error.message, error.details], [104, 'the pool is "dry"', 'd']);
  assert.equal(warnings, []);
  const del = thrown(() => delegate('dry', 'DEL', call()));
  assert.equal([del.code, del.message], [104, 'the pool is "dry"']);
});

test('a failure without an error document reports exit code and stderr', () => {
  const say = (body: string): string => thrown(() => delegate(ipam('fails', body), 'DEL', call())).message;
  assert.is(say('exit 3'), 'netplugin failed with no error message: exit status 3');
  assert.is(say('echo oh no >&2; exit 1'), 'netplugin failed: "oh no"');
  assert.match(
    say('echo text; exit 1'),
    /^netplugin failed but error parsing its diagnostic message "text\\n": /,
  );
  assert.match(say(`echo '{"msg":"no code"}'; exit 1`), '"code" is required');
});

test('stderr of one that worked goes to the log, line by line', () => {
  delegate(ipam('chatty', 'echo one >&2; echo >&2; echo two >&2'), 'DEL', call());
  assert.equal(warnings, ['one', 'two']);
});

test('one that prints a result with DEL is left to it', () => {
  delegate(ipam('odd', 'echo anything'), 'DEL', call());
});

test('a program that is being written is waited for', () => {
  ipam('busy', 'echo null');
  writeFileSync(`${folder}/busy`, readFileSync('/bin/true'));
  // Another process holds it open for writing and lets go after 300 ms, while this thread waits.
  const holder = spawn('/bin/sh', ['-c', `exec 5<>${folder}/busy; echo ready > ${other}/held; sleep 0.3`], {
    stdio: 'ignore',
  });
  while (!exists(`${other}/held`)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
  const began = Date.now();
  delegate('busy', 'DEL', call());
  assert.ok(Date.now() - began >= 50, 'it was busy at first');
  holder.kill();
});

test('one that stays busy fails in the end', () => {
  writeFileSync(`${folder}/stuck`, readFileSync('/bin/true'), { mode: 0o755 });
  const held = openSync(`${folder}/stuck`, 'r+');
  const error = thrown(() => delegate('stuck', 'DEL', call()));
  closeSync(held);
  assert.match(error.message, 'text file busy');
});

test('search: the folders of CNI_PATH in order, regular files only, links followed, mode not looked at', () => {
  mkdirSync(`${folder}/twice`);
  writeFileSync(`${other}/twice`, '');
  ipam('linked', ':');
  symlinkSync(`${folder}/linked`, `${other}/linked`);
  symlinkSync(`${folder}/nowhere`, `${other}/broken`);
  const path = ['/nowhere', other, folder];
  assert.is(findPlugin('twice', [folder, other]), `${other}/twice`);
  assert.is(findPlugin('linked', path), `${other}/linked`);
  const error = thrown(() => findPlugin('broken', path));
  assert.is(error.message, `failed to find plugin "broken" in path [/nowhere ${other} ${folder}]`);
  assert.is(error.code, 5);
  assert.is(thrown(() => findPlugin('', path)).message, 'no plugin name provided');
  assert.is(thrown(() => findPlugin('a/b', path)).message, 'invalid plugin name: a/b');
  assert.is(thrown(() => findPlugin('a', [])).message, 'no paths provided');
});

function exists(file: string): boolean {
  try {
    return readFileSync(file).length > 0;
  } catch {
    return false;
  }
}

test.run();
