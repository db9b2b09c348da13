/** ADD over the rules of another back end, of a consul-cni that finished or failed half-way, and over tables that a user emptied in part. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import {
  BACKENDS,
  leftovers,
  makeLegacyFolder,
  newNamespace,
  REQUEST,
  sh,
  succeeds,
} from '../../../support/tproxy.ts';

const test = suite('consul-tproxy: take-over', { limit: 60 });

/** Another job than the one that comes after it. */
const OTHER = {
  ...REQUEST,
  ExcludeInboundPorts: ['9002', '8000:8010'],
  ExcludeOutboundPorts: ['3306', '6000-6010'],
  ExcludeOutboundCIDRs: ['10.0.0.1/8', 'fd00:0::1/8'],
  ExcludeUIDs: ['daemon', '200-210'],
};

test.before(makeLegacyFolder);

for (const on of BACKENDS) {
  for (const before of BACKENDS.filter(({ name }) => name !== on.name)) {
    test(`${on.name}: takes over from ${before.name}`, () => {
      const netns = newNamespace();
      succeeds('ADD', { netns, on: before, request: OTHER, config: { udp: 'reject' } });
      succeeds('ADD', { netns, on });
      const fresh = newNamespace();
      succeeds('ADD', { netns: fresh, on });
      assert.is(leftovers(netns), leftovers(fresh));
    });
  }

  for (const variant of ['nft', 'legacy']) {
    test(`${on.name}: takes over what a consul-cni on iptables-${variant} left half-way, and what it finished`, () => {
      const fresh = newNamespace();
      succeeds('ADD', { netns: fresh, on });
      for (const count of [1, 6, 11, 14, 18, 36]) {
        const netns = newNamespace();
        upstream(netns, variant, count);
        succeeds('ADD', { netns, on });
        assert.is(leftovers(netns), leftovers(fresh), `after ${count} commands`);
      }
    });
  }

  test(`${on.name}: takes over the rules for IPv6 that a consul-cni in dual stack made, and those that an emptied nat table left behind`, () => {
    const fresh = newNamespace();
    succeeds('ADD', { netns: fresh, on });
    const dualStack = newNamespace();
    for (const command of commandsOf('dual-stack-dns-ipv6')) sh(`ip netns exec ${dualStack} ${command}`);
    assert.match(leftovers(dualStack), /# ip6tables-nft-save/);
    succeeds('ADD', { netns: dualStack, on });
    assert.is(leftovers(dualStack), leftovers(fresh));
    const emptied = newNamespace();
    const config = { ipv6: 'redirect', udp: 'reject' };
    succeeds('ADD', { netns: emptied, on, config });
    sh(`ip netns exec ${emptied} sh -ec 'PATH=${on.path}; iptables -t nat -F; iptables -t nat -X'`);
    succeeds('ADD', { netns: emptied, on });
    assert.is(leftovers(emptied), leftovers(fresh));
  });
}

test.run();

/** The first `count` of consul-cni's commands for a job with DNS; beyond 18 it has run twice and doubled its jumps. */
function upstream(netns: string, variant: string, count: number): void {
  const commands = commandsOf('nomad-countdash-dashboard');
  assert.is(commands.length, 18);
  for (const command of [...commands, ...commands].slice(0, count)) {
    sh(`ip netns exec ${netns} ${command.replace(/^iptables/, `iptables-${variant}`)} 2>/dev/null || true`);
  }
}

/** What consul-cni runs for this vector. */
function commandsOf(vector: string): string[] {
  const file = resolve(import.meta.dirname, '../../../vectors/tproxy-vectors.json');
  const vectors = JSON.parse(readFileSync(file, 'utf8')) as { name: string; commands: string[] }[];
  const { commands } = vectors.find(({ name }) => name === vector) ?? {};
  assert.ok(commands, `there is no vector ${vector}`);
  return commands;
}
