import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { suite, type Suite } from './suite.ts';
import { clear, rules, run, saved, sh, type Variant } from './variants.ts';
import {
  commits,
  good,
  makeContainer,
  makeWorld,
  reachesOutside,
  serve,
  useHostVariant,
  type Container,
} from './port-host.ts';

/** Chain of container c1 on net1. */
export const CHAIN = 'CNI-DN-c2d892b58e87e28a12fe6';

/** What forwards ports: either iptables, or the nftables backend on a host whose iptables is the nf_tables variant. */
export type Filter = Variant | 'nftables';

export interface Scene {
  readonly test: Suite;
  /** All rules for ports that there are, as the filter's own program prints them. */
  ruleset(): string;
  /** Containers with a server on ports 80, 81, 82 and 8080; only to be looked at inside of tests. */
  readonly c1: Container;
  readonly c2: Container;
}

/** A suite in a world of its own, without rules and leases before each test. */
export function scene(title: string, filter: Filter, limit = 90): Scene {
  const onNftables = filter === 'nftables';
  const test = suite(`portmap on ${onNftables ? filter : `iptables-${filter}`}: ${title}`, { limit });
  const servers: ChildProcess[] = [];
  const containers = new Map<string, Container>();
  test.before(async () => {
    useHostVariant(onNftables ? 'nft' : filter);
    makeWorld();
    sh('ip route add default via 192.0.2.2');
    sh('ip -6 route add default via 2001:db8::2');
    containers.set('c1', makeContainer('c1', 11));
    containers.set('c2', makeContainer('c2', 12));
    for (const [namespace, name] of [
      ['c1', 'one'],
      ['c2', 'two'],
      ['outside', 'out'],
    ] as const) {
      servers.push(await serve(namespace, name, 80, 81, 82, 8080));
    }
    for (const name of ['c1', 'c2']) reachesOutside(name);
  });
  test.after(() => servers.forEach((server) => server.kill()));
  test.beforeEach(() => {
    if (onNftables) run('nft', 'flush', 'ruleset');
    else clear('nat');
    node(onNftables ? { backend: 'nftables' } : undefined);
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
    ruleset: () => (onNftables ? run('nft', 'list', 'ruleset') : `${saved('nat')}\n${saved('nat', 'ipv6')}`),
    get c1() {
      return need('c1');
    },
    get c2() {
      return need('c2');
    },
  };
}

/** Writes the node's own defaults, or takes them away. */
export function node(defaults: object | undefined): void {
  rmSync('/etc/weft', { recursive: true, force: true });
  if (defaults === undefined) return;
  mkdirSync('/etc/weft');
  writeFileSync('/etc/weft/weft.json', JSON.stringify(defaults));
}

export function config(
  container: Container | undefined,
  mappings: object[] | undefined,
  more: object = {},
): object {
  return {
    cniVersion: '1.0.0',
    name: 'net1',
    type: 'portmap',
    ...(mappings === undefined ? {} : { runtimeConfig: { portMappings: mappings } }),
    ...(container === undefined ? {} : { prevResult: container.prevResult }),
    ...more,
  };
}

export function tcp(hostPort: number, containerPort = 80): object {
  return { hostPort, containerPort, protocol: 'tcp' };
}

export function udp(hostPort: number, containerPort = 80): object {
  return { hostPort, containerPort, protocol: 'udp' };
}

export function call(command: string, container: Container, mappings: object[], more: object = {}) {
  return good('portmap', command, container, config(container, mappings, more));
}

export function add(container: Container, mappings: object[], more: object = {}) {
  return call('ADD', container, mappings, more);
}

/** The rules of a chain of table nat, as iptables-save prints them. */
export function chainOf(name: string): string[] {
  return rules('nat').filter((line) => line.startsWith(`-A ${name} `));
}
