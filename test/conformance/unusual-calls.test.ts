import * as assert from 'uvu/assert';
import { PLUGINS } from '../../plugins/index.ts';
import { suite } from '../support/suite.ts';
import { call, changes, clean, prepareHost, state, succeeds, withoutIds } from './calls.ts';

/** Calls that no runtime makes every day: CHECK passes, and DEL leaves nothing. */
const test = suite('conformance: unusual calls', { limit: 60 });

test.before(prepareHost);

/** What differs in all calls, and in those after ADD. */
const CALLS: Readonly<Record<string, readonly [object, object]>> = {
  'a container id of 5,000 characters': [{ id: 'c'.repeat(5_000) }, {}],
  'PATH without any directory of programs after ADD': [{}, { path: '/nowhere' }],
};

for (const { name } of PLUGINS) {
  for (const [title, [always, later]] of Object.entries(CALLS)) {
    test(`${name}: ${title}`, () => {
      const before = clean(name);
      const result = JSON.parse(succeeds(call(name, 'ADD', always)).stdout) as object;
      succeeds(call(name, 'CHECK', { ...always, ...later, prevResult: result }), 'CHECK');
      succeeds(call(name, 'DEL', { ...always, ...later }), 'DEL');
      assert.equal(changes(before, withoutIds(state())), []);
    });
  }
}

test.run();
