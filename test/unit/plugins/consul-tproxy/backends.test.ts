import * as assert from 'uvu/assert';
import type { Backend } from '../../../../plugins/consul-tproxy/backend.ts';
import { addRules, removeRules } from '../../../../plugins/consul-tproxy/backends.ts';
import { differences } from '../../../../plugins/consul-tproxy/differences.ts';
import { DEFAULT_OPTIONS } from '../../../../plugins/consul-tproxy/config.ts';
import { iptablesBackend } from '../../../../plugins/consul-tproxy/iptables/backend.ts';
import { nftablesBackend } from '../../../../plugins/consul-tproxy/nftables/backend.ts';
import { planRules, type TablePlan } from '../../../../plugins/consul-tproxy/plan.ts';
import type { ProxyRequest } from '../../../../plugins/consul-tproxy/request.ts';
import { deleteFirstRule } from '../../../support/packetfilter/backend-cases.ts';
import { makeFakeHost } from '../../../support/packetfilter/fake-host.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('back ends of consul-tproxy');
const host = makeFakeHost();
const warn = (line: string): never => {
  throw new Error(`unexpected warning: ${line}`);
};

const REQUEST: ProxyRequest = {
  proxyUid: { first: 101, last: 101 },
  inboundPort: 20000,
  outboundPort: 15001,
  dns: { address: { family: 'ipv4', text: '10.0.0.1' }, port: 8600 },
  excludeInboundPorts: [{ first: 9002, last: 9002 }],
  excludeOutboundPorts: [{ first: 8080, last: 8090 }],
  excludeOutboundCidrs: { ipv4: ['10.1.0.0/16'], ipv6: ['fd00:1::/32'] },
  excludeUids: [{ first: 0, last: 0 }],
};
const PLAN = planRules(REQUEST, { ...DEFAULT_OPTIONS, ipv6: 'redirect' });
const OTHER_PLAN = planRules({ ...REQUEST, inboundPort: 20001, dns: undefined }, DEFAULT_OPTIONS);

const iptables = iptablesBackend({ commandPrefix: () => [], warn });
const nftables = nftablesBackend();

/** As CHECK finds them. */
function found(backend: Backend, plan: readonly TablePlan[]): readonly unknown[] {
  return differences(plan, backend.read());
}

for (const [backend, other] of [
  [iptables, nftables],
  [nftables, iptables],
] as const) {
  const { name } = backend;
  const contentsAfter = (...steps: (() => unknown)[]): string => {
    host.reset();
    for (const step of steps) step();
    return host.contents();
  };

  test(`${name}: ADD again changes nothing, and CHECK finds no difference`, () => {
    host.reset();
    assert.is(backend.add(PLAN), true);
    const { generation } = host.kernel;
    assert.is(backend.add(PLAN), false);
    assert.is(host.kernel.generation, generation);
    assert.equal(found(backend, PLAN), []);
  });

  test(`${name}: CHECK finds a lost rule, and ADD restores it`, () => {
    const complete = contentsAfter(() => backend.add(PLAN));
    const before = complete.split('\n').length;
    deleteFirstRule(host);
    assert.is(host.contents().split('\n').length, before - 1);
    assert.is.not(found(backend, PLAN).length, 0);
    backend.add(PLAN);
    assert.is(host.contents(), complete);
  });

  test(`${name}: ADD with another request replaces the rules`, () => {
    const first = contentsAfter(() => backend.add(OTHER_PLAN));
    assert.match(first, /20001/);
    backend.add(PLAN);
    assert.not.match(host.contents(), /20001/);
    assert.equal(found(backend, PLAN), []);
  });

  test(`${name}: DEL removes the rules, as often as it is called, and no other rule`, () => {
    host.reset();
    host.command('iptables -t nat -A OUTPUT -p esp -j ACCEPT');
    backend.add(PLAN);
    assert.ok(backend.present());
    backend.remove();
    const { generation } = host.kernel;
    backend.remove();
    assert.is(host.kernel.generation, generation);
    assert.not(backend.present());
    assert.match(host.saved('nat'), /-A OUTPUT -p esp -j ACCEPT/);
    assert.not.match(host.contents(), /CONSUL/i);
  });

  test(`${name}: ADD removes the rules of ${other.name}, DEL those of both`, () => {
    host.reset();
    addRules({ chosen: other, others: [backend] }, PLAN, warn);
    addRules({ chosen: backend, others: [other] }, PLAN, warn);
    assert.not(other.present());
    assert.equal(found(backend, PLAN), []);
    other.add(PLAN);
    removeRules({ chosen: backend, others: [other] }, warn);
    assert.not(backend.present() || other.present());
  });
}

test.run();
