import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';

const test = suite('build: flags in the executable', { limit: 60 });

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

test.run();
