/**
 * What an allocation costs on a host of the nf_tables variant of iptables where three hundred others stand in the same chains: how often a
 * chain is read, and how many rules are understood. Not time.
 */
import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { configure as configureFirewall } from '../../../plugins/firewall/config.ts';
import { iptablesBackend as firewall } from '../../../plugins/firewall/iptables/backend.ts';
import { hostsByFamily, type FirewallPlan } from '../../../plugins/firewall/plan.ts';
import type { PortForwarding } from '../../../plugins/portmap/backend.ts';
import { configure as configurePortmap } from '../../../plugins/portmap/config.ts';
import { iptablesBackend as portmap } from '../../../plugins/portmap/iptables/backend.ts';
import { parseCidr } from '../../../shared/net/address.ts';
import { requireSettings } from '../../../shared/config/decode.ts';
import { KernelRule } from '../../../shared/packetfilter/iptables-nft/chain-rules.ts';
import {
  masqueradeChange,
  masqueradeRemoval,
  missingMasquerade,
} from '../../../plugins/bridge/iptables/masquerade.ts';
import { NftConnection } from '../../../shared/packetfilter/nftables/connection.ts';
import { applyWherePossible, chooseDriver } from '../../../shared/packetfilter/select.ts';
import { suite } from '../../support/suite.ts';
import { clear, rules, useVariant } from '../../support/variants.ts';

const test = suite('long chains of iptables-nft', { limit: 60 });

const PRESENT = 300;

let lists: string[] = [];
let understood = new Set<KernelRule>();

test.before(() => {
  useVariant('nft');
  clear('filter', 'nat');
  const { list } = NftConnection.prototype;
  NftConnection.prototype.list = function (...args) {
    lists.push(args[0]);
    return list.apply(this, args);
  };
  const { get } = Object.getOwnPropertyDescriptor(KernelRule.prototype, 'rule') ?? {};
  Object.defineProperty(KernelRule.prototype, 'rule', {
    get(this: KernelRule) {
      understood.add(this);
      return get?.call(this) as unknown;
    },
  });
});

interface Allocation {
  readonly network: string;
  readonly containerId: string;
  readonly address: string;
  readonly port: number;
}

const allocation = (index: number): Allocation => ({
  network: 'net1',
  containerId: `cont-${index}`,
  address: `10.88.${1 + Math.floor(index / 250)}.${1 + (index % 250)}`,
  port: 20_000 + index,
});

function forwarding({ network, containerId, address, port }: Allocation): PortForwarding {
  const portMappings = ['tcp', 'udp'].map((protocol) => ({ hostPort: port, containerPort: 80, protocol }));
  const settings = requireSettings('portmap', configurePortmap({ runtimeConfig: { portMappings } }));
  const container = parseCidr(`${address}/16`);
  if (container === undefined) throw new Error('a good address');
  return { network, containerId, family: 'ipv4', settings, container, mappings: settings.mappings ?? [] };
}

const warn = (line: string): never => {
  throw new Error(line);
};
const settings = requireSettings('firewall', configureFirewall({}));
const plan = ({ network, containerId, address }: Allocation): FirewallPlan => ({
  ...settings,
  network,
  containerId,
  addresses: hostsByFamily([address]),
  subnets: { ipv4: [], ipv6: [] },
  bridge: undefined,
  hostInterfaces: [],
});

/** What each plugin does in its turn with the packet filter, and what must be missing afterwards. */
const STEPS: Record<string, Record<'add' | 'check' | 'del', (one: Allocation) => unknown>> = {
  bridge: {
    add: (one) => chooseDriver().apply(masqueradeChange({ ...one, addresses: [`${one.address}/16`] })),
    check: (one) =>
      missingMasquerade({ ...one, addresses: [`${one.address}/16`] }, (...table) =>
        chooseDriver().read(...table),
      ),
    del: (one) => applyWherePossible(chooseDriver(), masqueradeRemoval(one), warn),
  },
  firewall: {
    add: (one) => firewall.add(plan(one), warn),
    check: (one) => firewall.missing(plan(one), () => undefined),
    del: ({ network, containerId, address }) =>
      firewall.remove(
        { ...plan({ network, containerId, address, port: 0 }), known: hostsByFamily([address]) },
        warn,
      ),
  },
  portmap: {
    add: (one) => portmap.add(forwarding(one), warn),
    check: (one) => portmap.missing([forwarding(one)], new Set()),
    del: (one) => portmap.remove(one, ['ipv4', 'ipv6'], warn),
  },
};

interface Cost {
  readonly lists: readonly string[];
  readonly understood: number;
}

function costOf(work: () => unknown): Cost {
  lists = [];
  understood = new Set();
  work();
  return {
    lists: lists.map((what) =>
      what.replace(/CNI-(DN-)?[0-9a-f]{20,}/, 'own').replace('list rules of ip ', ''),
    ),
    understood: understood.size,
  };
}

/** One more allocation's life. */
function life(one: Allocation): Record<string, Cost> {
  const costs: Record<string, Cost> = {};
  for (const verb of ['add', 'again', 'check', 'del', 'gone'] as const) {
    for (const [plugin, steps] of Object.entries(STEPS)) {
      const step = steps[verb === 'again' ? 'add' : verb === 'gone' ? 'del' : verb];
      costs[`${plugin} ${verb}`] = costOf(() => {
        const answer = step(one);
        if (verb === 'check') assert.is(answer, undefined, plugin);
      });
    }
  }
  return costs;
}

test('one more costs the same beside one and beside three hundred; no chain is read twice, a handful of rules is understood', () => {
  const add = (index: number): void => {
    for (const { add: step } of Object.values(STEPS)) step(allocation(index));
  };
  add(0);
  // Rules that all allocations share are understood once in a process.
  life(allocation(1000));
  const few = life(allocation(1000));
  for (let index = 1; index < PRESENT; index++) add(index);
  const before = [rules('filter'), rules('nat')];
  const many = life(allocation(1000));
  assert.equal([rules('filter'), rules('nat')], before);
  assert.is(before[0]?.filter((line) => line.startsWith('-A CNI-FORWARD')).length, 2 * PRESENT + 1);
  assert.equal(many, few);
  for (const [what, cost] of Object.entries(many)) {
    assert.is(new Set(cost.lists).size, cost.lists.length, `${what}: ${cost.lists.join(', ')}`);
    assert.ok(cost.understood <= 15, `${what} understands ${cost.understood} rules`);
  }
  assert.equal(many['bridge add'], { lists: [], understood: 0 });
  assert.equal(many['firewall add']?.lists, ['filter FORWARD', 'filter CNI-FORWARD']);
  assert.is(many['portmap add']?.lists.filter((what) => what === 'nat CNI-HOSTPORT-DNAT').length, 1);
});

test('a port that one of the many holds is found, and its holder by name', () => {
  const taken = { ...allocation(2000), port: 20_123 };
  assert.throws(() => portmap.add(forwarding(taken), warn), /20123.*cont-123/);
});

test('what was put among them by hand is seen: a copy, another spelling, a jump of one’s own', () => {
  const one = allocation(3000);
  const iptables = (...args: string[]): void => void execFileSync('iptables', args);
  const accept = [
    '-d',
    `${one.address}/32`,
    '-m',
    'conntrack',
    '--ctstate',
    'ESTABLISHED,RELATED',
    '-j',
    'ACCEPT',
  ];
  for (const place of [17, 400]) iptables('-I', 'CNI-FORWARD', String(place), ...accept);
  const of = (lines: readonly string[]): number =>
    lines.filter((line) => line.includes(`${one.address}/32`)).length;
  STEPS['firewall']?.add(one);
  assert.is(of(rules('filter')), 2, 'one copy went');
  iptables('-I', 'CNI-FORWARD', '3', ...accept);
  STEPS['firewall']?.del(one);
  assert.is(of(rules('filter')), 0);

  STEPS['bridge']?.add(one);
  const own =
    rules('nat')
      .find((line) => line.includes(`-s ${one.address}/32`))
      ?.split(' -j ')[1] ?? '';
  iptables('-t', 'nat', '-I', 'POSTROUTING', '100', '-p', 'esp', '-j', own);
  iptables('-t', 'nat', '-N', 'ELSEWHERE');
  iptables('-t', 'nat', '-A', 'ELSEWHERE', '-s', '192.0.2.1', '-g', own);
  STEPS['bridge']?.del(one);
  assert.not(rules('nat').some((line) => line.includes(own)));
});

test.run();
