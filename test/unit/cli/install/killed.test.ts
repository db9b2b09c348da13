import { isDeepStrictEqual } from 'node:util';
import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { Node, runUntil } from './installation.ts';

/** `weft install`, `--rollback` and `uninstall`, killed at each of their changes, then followed by each of the three. */
const test = suite('install: killed', { limit: 120 });

const node = new Node();
test.after(() => node.remove());

type Operation = () => unknown;
const install = (version: string, agent: boolean): Operation =>
  named(`install ${version} ${agent}`, () => node.installer().install(node.target(version, agent), false));
const rollback = named('rollback', () => node.installer().rollback());
const uninstall = named('uninstall', () => node.installer().uninstall());

function named(name: string, operation: Operation): Operation {
  return Object.assign(operation, { toString: () => name });
}

/** The states that the operations lead to, each from a node without Weft. */
function stateAfter(...operations: Operation[]): Record<string, string> {
  node.reset(...operations);
  return node.state();
}

interface Scene {
  readonly title: string;
  /** What was run before. */
  readonly before: readonly Operation[];
  readonly killed: Operation;
  /** What is run afterwards, and the states that it may lead to. */
  readonly then: readonly (readonly [Operation, ...Record<string, string>[]])[];
}

const original = stateAfter();
const first = stateAfter(install('2.0.0', true));
const second = stateAfter(install('2.0.0', true), install('2.1.0', true));
const plain = stateAfter(install('2.1.0', false));

const SCENES: readonly Scene[] = [
  {
    title: 'first installation',
    before: [],
    killed: install('2.1.0', false),
    then: [
      [install('2.1.0', false), plain],
      [rollback, original],
      [uninstall, original],
    ],
  },
  {
    title: 'upgrade with the agent',
    before: [install('2.0.0', true)],
    killed: install('2.1.0', true),
    then: [
      [install('2.1.0', true), second],
      // Killed before it has recorded its begin, it is no installation: the one before it is rolled back. Completed, the same.
      [rollback, first, original],
      [uninstall, original],
    ],
  },
  {
    title: 'from the agent to processes',
    before: [install('2.0.0', true)],
    killed: install('2.0.0', false),
    then: [
      [install('2.0.0', false), stateAfter(install('2.0.0', true), install('2.0.0', false))],
      [uninstall, original],
    ],
  },
  {
    title: 'rollback of an upgrade',
    before: [install('2.0.0', true), install('2.1.0', true)],
    killed: rollback,
    then: [
      [rollback, first, original],
      [uninstall, original],
      [install('2.1.0', true), second],
    ],
  },
  {
    title: 'uninstall after an upgrade',
    before: [install('2.0.0', true), install('2.1.0', true)],
    killed: uninstall,
    then: [
      [uninstall, original],
      [rollback, original, first],
      [
        install('2.0.0', true),
        first,
        stateAfter(install('2.0.0', true), install('2.1.0', true), install('2.0.0', true)),
      ],
    ],
  },
];

for (const { title, before, killed, then } of SCENES) {
  test(`${title}: the next run, whichever it is, leads to a complete state`, () => {
    // Each change is killed once; the runs that follow take turns.
    for (const [turn, [follow, ...states]] of then.entries()) {
      const reached = new Set<number>();
      for (let at = turn; ; at += then.length) {
        node.reset(...before);
        if (!runUntil(at, killed)) break;
        follow();
        const state = node.state();
        const found = states.findIndex((one) => isDeepStrictEqual(one, state));
        if (found < 0) assert.equal(state, states[0], `killed at change ${at}`);
        reached.add(found);
        assert.ok(at < 300);
      }
      assert.ok(reached.has(0), `no kill led to the first state: ${String(follow)}`);
    }
  });
}

test('plugins are never missing: at every change each name is a complete plugin', () => {
  for (let at = 0; ; at++) {
    node.reset();
    if (!runUntil(at, install('2.1.0', true))) break;
    const state = node.state();
    for (const name of ['loopback', 'bridge', 'host-local', 'firewall', 'portmap', 'consul-cni'])
      assert.match(
        state[`cni/bin/${name}`] ?? '',
        /^7\d\d (#!\/bin\/sh\necho .*\n|\.\.\/\.\.\/reference)/,
        `${name} at ${at}`,
      );
  }
});

test.run();
