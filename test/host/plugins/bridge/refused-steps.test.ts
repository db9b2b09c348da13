import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { fail, succeed } from '../../../support/plugin.ts';
import { every, everyStep, failAt } from '../../../support/steps.ts';
import { suite } from '../../../support/suite.ts';
import { assertClean, assertComplete, c1, config, scenario, VARIANTS } from './faults.ts';
import { cleanHost, hostState, ipam, makeNamespace, network, sh } from './host.ts';

const test = suite('bridge: a system call fails', { limit: 900 });
test.beforeEach(cleanHost);
test.after(cleanHost);

for (const [name, own] of Object.entries(VARIANTS)) {
  test(`${name}: whichever step of ADD fails, the host is as before`, () => {
    everyStep(scenario('ADD', own), every, (step, _, disturbed) => {
      const before = hostState();
      const { exitCode, stdout, stderr } = disturbed(failAt(step));
      if (exitCode === 0) {
        // An optional step does not fail an ADD; the ADD must be complete then.
        assertComplete(JSON.parse(stdout) as CniResult, own);
      } else if (stderr.includes("cannot return to the host's network namespace")) {
        // The plugin ended inside the container's namespace, as if killed.
        succeed('bridge', 'DEL', c1, own);
        assertClean();
      } else {
        assert.type((JSON.parse(stdout) as { code: unknown }).code, 'number', stderr);
        assert.equal(hostState(), before);
      }
    });
  });
}

test('a read-only /proc/sys fails ADD where it matters, and nothing stays', () => {
  sh('ip link add br0 address 02:11:22:33:44:55 type bridge; ip link set br0 up');
  makeNamespace('c1');
  const before = hostState();
  sh('mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys');
  try {
    const error = fail('bridge', 'ADD', c1, config);
    assert.match(error.msg, /failed to (enable forwarding|prepare the container for IPv6): .*EROFS/);
    assert.equal(hostState(), before);
    succeed('bridge', 'ADD', c1, network({ isGateway: false, ipam: ipam(['10.88.0.0/16']) }));
  } finally {
    sh('umount /proc/sys');
  }
});

test.run();
