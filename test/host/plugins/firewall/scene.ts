import { globSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { readNft } from '../../../../shared/packetfilter/nftables/change.ts';
import { containersSet } from '../../../../plugins/firewall/nftables/objects.ts';
import { addressFromBytes, formatAddress } from '../../../../shared/net/address.ts';
import { suite, type Suite } from '../../../support/suite.ts';
import { clear, rules, run, sh, type Variant } from '../../../support/variants.ts';
import {
  commits,
  good,
  makeBridge,
  makeContainer,
  makeWorld,
  nft,
  reachesOutside,
  serve,
  useHostVariant,
  type Container,
} from '../../../support/port-host.ts';

/** What filters: either iptables, or the nftables back end on a host whose iptables is the nf_tables variant. */
export type Filter = Variant | 'nftables';

/** Three containers on two bridges with a server on port 80, on a host whose default route leads through `up0`. Only for use in tests. */
export interface Scene {
  readonly test: Suite;
  readonly c1: Container;
  readonly c2: Container;
  /** On br1. */
  readonly far: Container;
}

/**
 * A suite on a host of its own, without rules and leases before each test. {@link config} and {@link call} name its back end.
 * @param prepare called before anything else
 */
export function scene(
  title: string,
  filter: Filter,
  prepare: () => void = () => undefined,
  limit = 120,
): Scene {
  const onNftables = filter === 'nftables';
  backend = onNftables ? 'nftables' : 'iptables';
  const test = suite(`firewall on ${onNftables ? filter : `iptables-${filter}`}: ${title}`, { limit });
  const servers: ChildProcess[] = [];
  const made: Partial<Record<'c1' | 'c2' | 'far', Container>> = {};
  const get = (name: 'c1' | 'c2' | 'far'): Container => made[name] as Container;
  test.before(async () => {
    if (!onNftables) useHostVariant(filter);
    prepare();
    makeWorld();
    sh('ip route add default via 192.0.2.2');
    sh('ip -6 route add default via 2001:db8::2');
    makeBridge('br1', '10.99.0.1/16', 'fd00:99::1/64');
    made.c1 = makeContainer('c1', 11);
    made.c2 = makeContainer('c2', 12);
    made.far = makeContainer('far', 13, 'br1', 99);
    for (const [namespace, name] of [
      ['c1', 'one'],
      ['c2', 'two'],
      ['far', 'far'],
      ['outside', 'out'],
    ] as const) {
      servers.push(await serve(namespace, name, 80));
    }
    for (const name of ['c1', 'c2', 'far']) reachesOutside(name);
  });
  test.after(() => servers.forEach((server) => server.kill()));
  test.beforeEach(() => {
    nft('flush ruleset');
    if (!onNftables) {
      policy('ACCEPT');
      clear('filter', 'nat');
    }
    for (const path of ['/var/lib/cni', '/etc/weft', ...notes()])
      rmSync(path, { recursive: true, force: true });
    if (!onNftables) commits();
  });
  return {
    test,
    get c1() {
      return get('c1');
    },
    get c2() {
      return get('c2');
    },
    get far() {
      return get('far');
    },
  };
}

/** Of the scene; a test file has one. */
let backend = 'iptables';

export function config(container: Container | undefined, more: object = {}): object {
  return {
    cniVersion: '1.1.0',
    name: 'net1',
    type: 'firewall',
    backend,
    iptablesAdminChainName: 'NOMAD-ADMIN',
    ...(container === undefined ? {} : { prevResult: container.prevResult }),
    ...more,
  };
}

/** A call that must succeed. @returns what it wrote to stderr */
export function call(command: string, container: Container, more: object = {}): string {
  return good('firewall', command, container, config(container, more)).log;
}

export function add(container: Container, more: object = {}): string {
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

/** The files in which ADD notes containers' addresses. */
export function notes(): string[] {
  return globSync('/run/weft/firewall-*');
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

/** Accepted addresses of the nftables back end, with their comments: `10.88.0.11 = name: net1 id: c1`. */
export function elements(): string[] {
  return readNft((reader) =>
    (['ipv4', 'ipv6'] as const).flatMap((family) =>
      reader.elements(containersSet(family)).map(({ key, comment }) => {
        const address = addressFromBytes(key);
        return `${address === undefined ? '?' : formatAddress(address)} = ${comment ?? ''}`;
      }),
    ),
  ).sort();
}

/** The elements of one container. */
export function owned(container: Container, network = 'net1'): string[] {
  return [container.ipv4, container.ipv6].map(
    (address) => `${address} = name: ${network} id: ${container.id}`,
  );
}
