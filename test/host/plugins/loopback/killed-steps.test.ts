import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { succeed } from '../../../support/plugin.ts';
import { changing, disturbedThenDeleted, everyStep, killAt, type Scenario } from '../../../support/steps.ts';
import { suite } from '../../../support/suite.ts';

/** The executable killed before each system call that changes the namespace. */
const test = suite('loopback: killed before each change', { limit: 120 });

const attachment = { id: 'c1', netns: '/run/netns/pod' };
const config = { cniVersion: '1.0.0', name: 'net', type: 'loopback' };
const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });
const stateOf = (...namespace: string[]): string => ip(...namespace, '-o', 'addr', 'show', 'dev', 'lo');

const scenario = (command: 'ADD' | 'DEL'): Scenario => ({
  plugin: 'loopback',
  command,
  attachment,
  config,
  prepare: () => {
    ip('netns', 'add', 'pod');
    if (command === 'DEL') succeed('loopback', 'ADD', attachment, config);
  },
  clean: () => void ip('netns', 'del', 'pod'),
});

const ofHost = stateOf();

function remove(): void {
  succeed('loopback', 'DEL', attachment, config);
  assert.match(ip('-n', 'pod', 'link', 'show', 'lo'), 'state DOWN');
  assert.is(stateOf(), ofHost);
}

test('ADD killed at any step: ADD again completes it, CHECK passes, and DEL brings lo down', () => {
  everyStep(scenario('ADD'), changing, (step, _, disturbed) => {
    disturbed(killAt(step));
    const prevResult = succeed('loopback', 'ADD', attachment, config) as object;
    succeed('loopback', 'CHECK', attachment, { ...config, prevResult });
    assert.match(stateOf('-n', 'pod'), '127.0.0.1/8');
    remove();
  });
});

disturbedThenDeleted(test, scenario, remove);

test.run();
