import * as assert from 'uvu/assert';
import { nftablesBackend } from '../../../../../plugins/firewall/nftables/backend.ts';
import { hostsByFamily, type FirewallPlan } from '../../../../../plugins/firewall/plan.ts';
import { NftConnection } from '../../../../../shared/packetfilter/nftables/connection.ts';
import { suite } from '../../../../support/suite.ts';
import { nftScript, run } from '../../../../support/variants.ts';

/** What ADD, CHECK and DEL read of the kernel, with few and with many containers: messages and bytes, not time. */
const test = suite('firewall on nftables: at any scale', { limit: 60 });

interface Read {
  readonly asked: string;
  readonly bytes: number;
}

let reads: Read[] = [];
test.before(() => {
  const { dump, get, getAll, commit } = NftConnection.prototype;
  NftConnection.prototype.dump = function (...args) {
    const bodies = dump.apply(this, args);
    reads.push({ asked: args[0], bytes: bodies.reduce((sum, { length }) => sum + length, 0) });
    return bodies;
  };
  NftConnection.prototype.get = function (asked) {
    const body = get.call(this, asked);
    reads.push({ asked: asked.what, bytes: body?.length ?? 0 });
    return body;
  };
  NftConnection.prototype.getAll = function (asked) {
    const bodies = getAll.call(this, asked);
    reads.push(...asked.map(({ what }, at) => ({ asked: what, bytes: bodies[at]?.length ?? 0 })));
    return bodies;
  };
  NftConnection.prototype.commit = function (requests, generation) {
    reads.push({ asked: `commit of ${requests.length}`, bytes: 0 });
    commit.call(this, requests, generation);
  };
});

const settings = {
  backend: 'nftables',
  adminChain: 'NOMAD-ADMIN',
  ingressPolicy: 'same-bridge',
  zone: '',
} as const;
const warnings: string[] = [];
const warn = (line: string): void => void warnings.push(line);

function plan(number: number): FirewallPlan {
  const address = `10.${number >> 16}.${(number >> 8) & 255}.${number & 255}`;
  const texts = [address, `fd00::${number.toString(16)}`];
  return {
    ...settings,
    network: 'net1',
    containerId: `container-${number}`,
    addresses: hostsByFamily(texts),
    subnets: { ipv4: ['10.0.0.0/8'], ipv6: ['fd00::/64'] },
    bridge: 'br0',
    hostInterfaces: ['br0'],
  };
}

/** One container's life; what was read in each step. */
function life(number: number): Record<'add' | 'again' | 'check' | 'del' | 'gone', Read[]> {
  const one = plan(number);
  const step = (work: () => void): Read[] => {
    reads = [];
    work();
    return reads;
  };
  return {
    add: step(() => nftablesBackend.add(one, warn)),
    again: step(() => nftablesBackend.add(one, warn)),
    check: step(() =>
      assert.is(
        nftablesBackend.missing(one, () => undefined),
        undefined,
      ),
    ),
    del: step(() => nftablesBackend.remove({ ...one, known: one.addresses, zone: '' }, warn)),
    gone: step(() => nftablesBackend.remove({ ...one, known: one.addresses, zone: '' }, warn)),
  };
}

test('a container costs the same with one and with five thousand others, and nothing lists them', () => {
  // Others' tables that are there on real hosts: iptables' own, and a chain for each container's ports.
  run('iptables', '-A', 'FORWARD', '-i', 'br9', '-j', 'ACCEPT');
  nftablesBackend.add(plan(1), warn);
  const few = life(70_000);
  const many = Array.from({ length: 5_000 }, (_, at) => 100 + at);
  const list = (write: (number: number) => string): string =>
    many.map((number) => `${write(number)} comment "name: net1 id: container-${number}"`).join(', ');
  nftScript([
    `add element inet weft_firewall containers4 { ${list((number) => `10.0.${number >> 8}.${number & 255}`)} }`,
    `add element inet weft_firewall containers6 { ${list((number) => `fd00::${number.toString(16)}`)} }`,
    'add table ip weft_hostports',
    ...many.map((number) => `add chain ip weft_hostports CNI-DN-${number}`),
  ]);
  const crowded = life(70_001);
  for (const step of ['add', 'again', 'check', 'del', 'gone'] as const) {
    const asked = (all: readonly Read[]): string[] => all.map((read) => read.asked.replace(/70001/, '70000'));
    assert.equal(asked(crowded[step]), asked(few[step]), step);
    const bytes = (all: readonly Read[]): number => all.reduce((sum, read) => sum + read.bytes, 0);
    const [with1, with5000] = [bytes(few[step]), bytes(crowded[step])];
    // The table of ports, which was not there before, is one more line of the list of tables.
    assert.ok(with5000 <= with1 + 200, `${step}: ${with1} bytes with one, ${with5000} with 5000`);
    assert.not.ok(
      asked(crowded[step]).some((what) => /list (elements|chains)/.test(what)),
      step,
    );
  }
  assert.equal(
    [few.again, few.check, few.gone].flat().filter(({ asked }) => /^commit of [1-9]/.test(asked)),
    [],
  );
  assert.equal(warnings, []);
});

test.run();
