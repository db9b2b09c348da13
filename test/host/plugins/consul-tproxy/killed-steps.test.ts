/** consul-tproxy killed before each system call that changes something: nothing stays that the next call does not complete or remove. */
import { existsSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { changing, everyStep, killAt, type Scenario } from '../../../support/steps.ts';
import { suite } from '../../../support/suite.ts';
import {
  BACKENDS,
  leftovers,
  makeLegacyFolder,
  nomadArgs,
  PREVIOUS,
  REQUEST,
  sh,
  succeeds,
  type TestedBackend,
} from '../../../support/tproxy.ts';

const test = suite('consul-tproxy: killed before each change', { limit: 900 });

test.before(makeLegacyFolder);

const netns = 'killed';
const id = 'alloc-1';

for (const on of BACKENDS) {
  test(`${on.name}: killed at any step of ADD; ADD again completes it, or DEL alone leaves nothing`, () => {
    everyStep(scenario('ADD', on), changing, (step, at, disturbed) => {
      disturbed(killAt(step));
      if (at % 2 === 0) {
        succeeds('ADD', { netns, on, id });
        assert.equal(succeeds('CHECK', { netns, on, id, config: { check: 'strict' } }), []);
        assert.ok(existsSync(`/etc/netns/${netns}/resolv.conf`));
      }
      // The namespace's path is not always known to DEL, and then the file is found by its first line.
      succeeds('DEL', { netns, on, id });
      assert.is(leftovers(netns), '');
      assert.not.ok(existsSync('/etc/netns'), sh('find /etc/netns || true'));
    });
  });

  test(`${on.name}: killed at any step of DEL; DEL again leaves nothing`, () => {
    everyStep(scenario('DEL', on), changing, (step, _, disturbed) => {
      disturbed(killAt(step));
      succeeds('DEL', { netns, on, id });
      assert.is(leftovers(netns), '');
      assert.not.ok(existsSync('/etc/netns'), sh('find /etc/netns || true'));
    });
  });
}

test.run();

function scenario(command: 'ADD' | 'DEL', on: TestedBackend): Scenario {
  const config = { cniVersion: '0.4.0', name: 'nomad', type: 'consul-cni', backend: on.backend };
  return {
    plugin: 'consul-cni',
    command,
    attachment: { id, netns: `/var/run/netns/${netns}`, args: command === 'ADD' ? nomadArgs(REQUEST) : '' },
    config: command === 'ADD' ? { ...config, prevResult: PREVIOUS } : config,
    searchPath: on.path,
    prepare: () => {
      sh(`ip netns add ${netns} && ip -n ${netns} link set lo up`);
      if (command === 'DEL') succeeds('ADD', { netns, on, id });
    },
    clean: () => {
      sh(`ip netns del ${netns} 2>/dev/null; rm -rf /etc/netns; true`);
    },
  };
}
