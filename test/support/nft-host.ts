import { rmSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { readNft } from '../../shared/packetfilter/nftables/change.ts';
import { NftConnection } from '../../shared/packetfilter/nftables/connection.ts';
import { containersSet } from '../../plugins/firewall/nftables/objects.ts';
import { addressFromBytes, formatAddress } from '../../shared/net/address.ts';
import { suite, type Suite } from './suite.ts';
import { run, sh } from './variants.ts';
import {
  good,
  makeBridge,
  makeContainer,
  makeWorld,
  reachesOutside,
  serve,
  type Container,
} from './port-host.ts';

/** Three containers on two bridges that answer on port 80 with their names, on a host whose way out is `up0`. */
export interface NftScene {
  readonly test: Suite;
  readonly c1: Container;
  readonly c2: Container;
  /** On br1. */
  readonly far: Container;
}

export function nftScene(title: string, prepare: () => void = () => undefined): NftScene {
  const test = suite(title, { limit: 120 });
  const servers: ChildProcess[] = [];
  const made: Partial<Record<'c1' | 'c2' | 'far', Container>> = {};
  const get = (name: 'c1' | 'c2' | 'far'): Container => made[name] as Container;
  test.before(async () => {
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
    rmSync('/var/lib/cni', { recursive: true, force: true });
    rmSync('/etc/weft', { recursive: true, force: true });
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

export function config(container: Container | undefined, more: object = {}): object {
  return {
    cniVersion: '1.1.0',
    name: 'net1',
    type: 'firewall',
    backend: 'nftables',
    iptablesAdminChainName: 'NOMAD-ADMIN',
    ...(container === undefined ? {} : { prevResult: container.prevResult }),
    ...more,
  };
}

/** A call that must succeed; gives what it said on stderr. */
export function call(command: string, container: Container, more: object = {}): string {
  return good('firewall', command, container, config(container, more)).log;
}

/** nft(8) with words as a person would type them. */
export function nft(line: string): string {
  return run('nft', line);
}

/** Lines of the table, without indentation and outermost braces' names. */
export function listed(what: string): string[] {
  return nft(`list ${what}`)
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

/** Addresses that are let through, with what is said of each: `10.88.0.11 = name: net1 id: c1`. */
export function elements(): string[] {
  return readNft((view) =>
    (['ipv4', 'ipv6'] as const).flatMap((family) =>
      view.elements(containersSet(family)).map(({ key, comment }) => {
        const address = addressFromBytes(key);
        return `${address === undefined ? '?' : formatAddress(address)} = ${comment ?? ''}`;
      }),
    ),
  ).sort();
}

export function owned(container: Container, network = 'net1'): string[] {
  return [container.ipv4, container.ipv6].map(
    (address) => `${address} = name: ${network} id: ${container.id}`,
  );
}

/** Grows with every transaction of this host, whoever made it. */
export function generation(): number {
  using connection = NftConnection.open();
  return connection.generation();
}
