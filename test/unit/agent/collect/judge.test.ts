import * as assert from 'uvu/assert';
import { GRACE_MS, judge, type Belongings, type HostFacts } from '../../../../agent/collect/judge.ts';
import type { InventoryEntry } from '../../../../shared/attachments/inventory.ts';
import type { Trace } from '../../../../shared/attachments/leftover.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('which containers are gone');
const NOW = 1_700_000_000_000;

const FACTS: HostFacts = {
  nowMs: NOW,
  uptimeMs: 10 * GRACE_MS,
  holderOf: () => 'none',
  isNamed: () => false,
  alive: new Set(),
};

function entry(state: InventoryEntry['state'], more: Partial<InventoryEntry> = {}): InventoryEntry {
  return {
    network: 'net1',
    containerId: 'c1',
    ifname: 'eth0',
    netns: '/var/run/netns/c1',
    namespace: undefined,
    addresses: ['10.0.0.2/24'],
    hostInterfaces: [],
    plugins: [],
    cniVersion: undefined,
    prevResult: undefined,
    args: [],
    capabilityArgs: {},
    addedAtMs: NOW - 2 * GRACE_MS,
    state,
    reason: `it is ${state}`,
    cacheFile: undefined,
    leaseFiles: [],
    ...more,
  };
}

function trace(namespace: Trace['namespace'], addresses: readonly string[] = []): Trace {
  return { network: 'net1', containerId: 'c1', what: 'a rule', namespace, addresses: () => addresses };
}

function verdict(more: Partial<Belongings>, facts: Partial<HostFacts> = {}): string | undefined {
  const belongings = {
    network: 'net1',
    containerId: 'c1',
    entries: [],
    traces: [],
    newestMs: NOW - 2 * GRACE_MS,
    ...more,
  };
  const found = judge(belongings, { ...FACTS, ...facts });
  return found === undefined ? undefined : `${found.verdict}: ${found.reason}`;
}

test('an attachment that is certainly gone is a leak; a running one is none; an unknown one is in doubt', () => {
  assert.is(verdict({ entries: [entry('gone')] }), 'leak: it is gone');
  assert.is(verdict({ entries: [entry('running')], traces: [trace('gone')] }), undefined);
  assert.is(verdict({ entries: [entry('unknown')] }), 'doubt: it is unknown');
  assert.is(verdict({ entries: [entry('gone'), entry('running', { ifname: 'eth1' })] }), undefined);
});

test('what runs on another network is not gone', () => {
  const reason = verdict({ entries: [entry('gone')] }, { alive: new Set(['c1']) });
  assert.is(reason, 'doubt: the container is attached to another network');
});

test('rules alone: gone if no namespace has their addresses; a namespace that is named after the container runs', () => {
  const rules = { traces: [trace('unknown', ['10.0.0.2'])], newestMs: undefined };
  assert.is(verdict(rules), 'leak: no network namespace is named after it or has its address');
  assert.is(verdict(rules, { isNamed: () => true }), undefined);
  const holder = { path: '/proc/7/ns/net', address: '10.0.0.2' };
  assert.is(
    verdict(rules, { holderOf: () => holder }),
    'doubt: network namespace /proc/7/ns/net has address 10.0.0.2',
  );
  assert.is(
    verdict(rules, { holderOf: () => 'unknown' }),
    "doubt: the host's namespaces could not all be read",
  );
  assert.is(verdict({ traces: [trace('unknown')] }), 'doubt: no address and no network namespace are known');
});

test('an interface whose other end is in a namespace keeps everything of its container', () => {
  const traces = [trace('unknown', ['10.0.0.2']), trace('exists')];
  const doubt = 'doubt: a rule leads to a network namespace of another name';
  assert.is(verdict({ traces }), doubt);
  assert.is(verdict({ entries: [entry('gone')], traces }), doubt);
  assert.is(
    verdict({ traces: [trace('gone')] }),
    'leak: no network namespace is named after it or has its address',
  );
});

test('ten minutes after the newest file or call, and after the start of the host; not while the clock is wrong', () => {
  const entries = [entry('gone')];
  const young = 'doubt: younger than 10 minutes';
  assert.is(verdict({ entries, newestMs: NOW - GRACE_MS + 1 }), young);
  assert.is(verdict({ entries, newestMs: NOW - GRACE_MS }), 'leak: it is gone');
  assert.is(verdict({ entries }, { uptimeMs: GRACE_MS - 1 }), young);
  assert.is(verdict({ entries, newestMs: NOW + 5 * GRACE_MS }), young);
  assert.is(verdict({ traces: [trace('gone')], newestMs: undefined }, { uptimeMs: 1 }), young);
});

test.run();
