import * as assert from 'uvu/assert';
import { callLine } from '../../../agent/log.ts';
import { suite } from '../../support/suite.ts';

const test = suite('agent: log');

function lineFor(stdin: string): string {
  const file = { dev: 0n, ino: 0n };
  const environment = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'c1' };
  const request = { plugin: 'bridge', environment, stdin, netns: file, launcher: file };
  return callLine(request, { outcome: 0, stdout: '', milliseconds: 1.25 })[1];
}

test('a line names verb, plugin, network and container', () => {
  assert.is(lineFor('{"name":"net1"}'), 'ADD bridge network=net1 container=c1 1.3ms ok');
  assert.is(lineFor('{"name":'), 'ADD bridge network=- container=c1 1.3ms ok');
});

// JSON.parse alone took 12 s for it, after the answer, and every other call of the node waited.
test('a call with seven million nested lists on stdin does not delay the next one', () => {
  const began = performance.now();
  assert.match(lineFor(`{"name":"net1","a":${'['.repeat(7e6)}${']'.repeat(7e6)}}`), 'network=-');
  assert.ok(performance.now() - began < 5000, `${performance.now() - began} ms`);
});

test.run();
