import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { suite, type Suite } from '../../../support/suite.ts';
import { clear, rules, run, type Variant } from '../../../support/variants.ts';
import {
  commits,
  good,
  makeBridge,
  makeContainer,
  makeWorld,
  serve,
  useHostVariant,
  type Container,
} from '../../../support/port-host.ts';

export interface Scene {
  readonly test: Suite;
  /** Two containers on bridge br0 and one on br1, each with a server on port 80; only to be looked at inside of tests. */
  readonly c1: Container;
  readonly c2: Container;
  readonly far: Container;
}

/** A suite in a world of its own, with empty tables, FORWARD on ACCEPT and no leases before each test. */
export function scene(title: string, variant: Variant): Scene {
  const test = suite(`firewall on iptables-${variant}: ${title}`, { limit: 90 });
  const servers: ChildProcess[] = [];
  const containers = new Map<string, Container>();
  test.before(async () => {
    useHostVariant(variant);
    makeWorld();
    makeBridge('br1', '10.99.0.1/16', 'fd00:99::1/64');
    containers.set('c1', makeContainer('c1', 11));
    containers.set('c2', makeContainer('c2', 12));
    containers.set('far', makeContainer('far', 13, 'br1', 99));
    for (const [namespace, name] of [
      ['c1', 'one'],
      ['c2', 'two'],
      ['far', 'far'],
      ['outside', 'out'],
    ] as const) {
      servers.push(await serve(namespace, name, 80));
    }
  });
  test.after(() => servers.forEach((server) => server.kill()));
  test.beforeEach(() => {
    policy('ACCEPT');
    clear('filter', 'nat');
    rmSync('/var/lib/cni', { recursive: true, force: true });
    commits();
  });
  const need = (id: string): Container => {
    const container = containers.get(id);
    if (container === undefined) throw new Error(`${id} is not made yet`);
    return container;
  };
  return {
    test,
    get c1() {
      return need('c1');
    },
    get c2() {
      return need('c2');
    },
    get far() {
      return need('far');
    },
  };
}

export function config(container: Container | undefined, more: object = {}): object {
  return {
    cniVersion: '1.0.0',
    name: 'net1',
    type: 'firewall',
    backend: 'iptables',
    iptablesAdminChainName: 'NOMAD-ADMIN',
    ...(container === undefined ? {} : { prevResult: container.prevResult }),
    ...more,
  };
}

export function call(command: string, container: Container, more: object = {}) {
  return good('firewall', command, container, config(container, more));
}

export function add(container: Container, more: object = {}) {
  return call('ADD', container, more);
}

/** The rules of a chain of table filter, as iptables-save prints them behind `-A CHAIN `. */
export function chainOf(name: string, family: 'ipv4' | 'ipv6' = 'ipv4'): string[] {
  return rules('filter', family)
    .filter((line) => line.startsWith(`-A ${name} `))
    .map((line) => line.slice(name.length + 4));
}

/** The rules of CNI-FORWARD that let containers through. */
export function accepts(family: 'ipv4' | 'ipv6' = 'ipv4'): string[] {
  return chainOf('CNI-FORWARD', family).filter((line) => line.endsWith('-j ACCEPT'));
}

export const JUMP = '-m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD';
export const ADMIN = '-m comment --comment "CNI firewall plugin admin overrides" -j NOMAD-ADMIN';

/** The rules of one address: `10.88.0.11/32`. */
export function own(address: string): string[] {
  return [`-d ${address} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`, `-s ${address} -j ACCEPT`];
}

export function policy(target: 'ACCEPT' | 'DROP'): void {
  for (const family of ['iptables', 'ip6tables']) run(family, '-P', 'FORWARD', target);
}

export function lease(network: string, address: string, text: string): void {
  mkdirSync(`/var/lib/cni/networks/${network}`, { recursive: true });
  writeFileSync(`/var/lib/cni/networks/${network}/${address}`, text);
}

export function keep(network: string, containerId: string, addresses: readonly string[]): void {
  mkdirSync('/var/lib/cni/results', { recursive: true });
  const ips = addresses.map((address) => ({ interface: 2, address }));
  const entry = { kind: 'cniCacheV1', containerId, ifName: 'eth0', networkName: network, result: { ips } };
  writeFileSync(`/var/lib/cni/results/${network}-${containerId}-eth0`, JSON.stringify(entry));
}
