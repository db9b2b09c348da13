import * as assert from 'uvu/assert';
import { prewarmIpam } from '../../../shared/ipam/prewarm.ts';
import { suite } from '../../support/suite.ts';
import { watchingFs } from './fs-calls.ts';

const test = suite('allocator, rehearsed for the snapshot');

test('runs as often as one likes and touches no file', () => {
  const calls: string[] = [];
  watchingFs(
    (name) => calls.push(name),
    () => {
      prewarmIpam();
      prewarmIpam();
    },
  );
  assert.equal(calls, []);
});

test.run();
