import * as assert from 'uvu/assert';
import { parseCidr } from '../../../../shared/net/address.ts';
import type { PortForwarding } from '../../../../plugins/portmap/backend.ts';
import { configure } from '../../../../plugins/portmap/config.ts';
import { nftablesBackend } from '../../../../plugins/portmap/nftables/backend.ts';
import { requireSettings } from '../../../../shared/config/decode.ts';
import { NftConnection } from '../../../../shared/packetfilter/nftables/connection.ts';
import { suite } from '../../../support/suite.ts';
import { nftScript } from '../../../support/variants.ts';

/** What ADD, CHECK and DEL read of the kernel, with few and with many mapped ports: messages and bytes, not time. */
const test = suite('portmap on nftables: at any scale', { limit: 60 });

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

function forwarding(containerId: string, port: number): PortForwarding {
  const portMappings = [port, port + 1].flatMap((hostPort) =>
    ['tcp', 'udp'].map((protocol) => ({ hostPort, containerPort: 80, protocol })),
  );
  const settings = requireSettings('portmap', configure({ runtimeConfig: { portMappings } }));
  const container = parseCidr('10.88.0.11/16');
  if (container === undefined) throw new Error('a good address');
  const { mappings = [] } = settings;
  return { network: 'net1', containerId, family: 'ipv4', settings, container, mappings };
}

const warnings: string[] = [];
const warn = (line: string): void => void warnings.push(line);

/** One container's life; what was read in each step. */
function life(containerId: string): Record<'add' | 'again' | 'check' | 'del' | 'gone', Read[]> {
  const one = forwarding(containerId, 9002);
  const step = (work: () => void): Read[] => {
    reads = [];
    work();
    return reads.map(({ asked, bytes }) => ({ asked: asked.replaceAll(/CNI-DN-\w+/g, 'CNI-DN-x'), bytes }));
  };
  const del = (): void => void nftablesBackend.remove(one, ['ipv4', 'ipv6'], warn);
  return {
    add: step(() => nftablesBackend.add(one, warn)),
    again: step(() => nftablesBackend.add(one, warn)),
    check: step(() => assert.is(nftablesBackend.missing([one], new Set()), undefined)),
    del: step(del),
    gone: step(del),
  };
}

test('a container costs the same with one and with ten thousand mapped ports, and nothing lists them', () => {
  nftablesBackend.add(forwarding('first', 8002), warn);
  const few = life('few');
  const many = Array.from({ length: 10_000 }, (_, at) => at);
  nftScript([
    ...many.map(
      (at) => `add chain ip weft_hostports CNI-DN-${at} { comment "name: net1 id: crowd-${at}" ; }`,
    ),
    `add element ip weft_hostports ports { ${many.map((at) => `tcp . ${20_000 + at} comment "name: net1 id: crowd-${at}" : jump CNI-DN-${at}`).join(', ')} }`,
    ...many.map(
      (at) => `add rule ip weft_hostports CNI-DN-${at} tcp dport ${20_000 + at} dnat to 10.88.0.9:80`,
    ),
  ]);
  const crowded = life('many');
  for (const step of ['add', 'again', 'check', 'del', 'gone'] as const) {
    const asked = (all: readonly Read[]): string[] => all.map((read) => read.asked);
    assert.equal(asked(crowded[step]), asked(few[step]), step);
    const bytes = (all: readonly Read[]): number => all.reduce((sum, read) => sum + read.bytes, 0);
    assert.ok(bytes(crowded[step]) <= bytes(few[step]) + 50, step);
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
