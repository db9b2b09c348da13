/** The jobs that roll Weft out: valid HCL, and what the rollout depends on is in them. */
import { resolve } from 'node:path';
import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { hclAt, parseHcl } from '../../support/hcl.ts';
import { suite } from '../../support/suite.ts';

const test = suite('Nomad jobs for rollout');
const root = resolve(import.meta.dirname, '../../..');
const install = parseHcl(`${root}/packaging/nomad/weft.nomad.hcl`);
const agent = parseHcl(`${root}/packaging/nomad/weft-agent.nomad.hcl`);

test('both are system jobs for Linux that change one client after the other and revert', () => {
  for (const [job, name] of [
    [install, 'weft'],
    [agent, 'weft-agent'],
  ] as const) {
    assert.is(hclAt(job, 'job', name, 'type'), 'system');
    assert.match(
      JSON.stringify(hclAt(job, 'job', name, 'constraint')),
      '"${attr.kernel.name}","value":"linux"',
    );
    assert.is(hclAt(job, 'job', name, 'update', 'max_parallel'), 1);
    assert.is(hclAt(job, 'job', name, 'update', 'auto_revert'), true);
  }
});

test('the installation: artifact with checksum, prestart task as root, doctor decides about health', () => {
  const task = (name: string, ...path: string[]) =>
    hclAt(install, 'job', 'weft', 'group', 'install', 'task', name, ...path);
  assert.equal(
    [task('install', 'driver'), task('install', 'user'), task('install', 'lifecycle', 'hook')],
    ['raw_exec', 'root', 'prestart'],
  );
  assert.is(task('install', 'artifact', 'source'), '${var.url}');
  assert.is(task('install', 'artifact', 'options', 'checksum'), '${var.checksum}');
  assert.is(task('install', 'config', 'command'), 'local/${var.directory}/weft');
  assert.match(
    JSON.stringify(task('install', 'config', 'args')).replaceAll('\\', ''),
    '["install"], var.agent ? ["--agent"]',
  );
  assert.match(JSON.stringify(task('doctor', 'config', 'args')), 'doctor; status=$?');
  const { version } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8')) as { version: string };
  assert.is(hclAt(install, 'variable', 'directory', 'default'), `weft-${version}-linux-x64`);
});

test('the agent runs as root, in the host itself', () => {
  const task = (...path: string[]) =>
    hclAt(agent, 'job', 'weft-agent', 'group', 'agent', 'task', 'agent', ...path);
  assert.equal([task('driver'), task('user'), task('kill_signal')], ['raw_exec', 'root', 'SIGTERM']);
  assert.is(task('config', 'args'), 'agent');
});

test.run();
