import { closeSync } from 'node:fs';
import { addressBytes, parseAddress } from '../../../../../shared/net/address.ts';
import { checked, libc } from '../../../../../shared/kernel/libc.ts';
import { inNamespace } from '../../../../../shared/kernel/namespace.ts';
import { run, sh } from '../../../../support/variants.ts';

/**
 * A host that forwards between two namespaces, and a counter of what has passed all of its forward hooks:
 *
 *     inner  10.1.0.2  --  br0 10.1.0.1 [host] 10.2.0.1 up0  --  10.2.0.2  outer
 *            fd01::2           fd01::1         fd02::1            fd02::2
 */
export const INNER = { ip: '10.1.0.2', ip6: 'fd01::2' } as const;
export const OUTER = { ip: '10.2.0.2', ip6: 'fd02::2' } as const;
export type Family = keyof typeof INNER;

export function makeWire(): void {
  sh('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1');
  const ends = [
    ['inner', 'br0', '1'],
    ['outer', 'up0', '2'],
  ] as const;
  for (const [namespace, device, net] of ends) {
    sh(`ip netns add ${namespace}`);
    sh(`ip link add ${device} type veth peer name eth0 netns ${namespace}`);
    sh(`ip addr add 10.${net}.0.1/24 dev ${device}`);
    sh(`ip addr add fd0${net}::1/64 dev ${device} nodad`);
    sh(`ip link set ${device} up`);
    for (const line of [
      'link set lo up',
      'link set eth0 up',
      `addr add 10.${net}.0.2/24 dev eth0`,
      `addr add fd0${net}::2/64 dev eth0 nodad`,
      `route add default via 10.${net}.0.1`,
      `-6 route add default via fd0${net}::1`,
    ]) {
      sh(`ip -n ${namespace} ${line}`);
    }
  }
  run(
    'nft',
    `add table inet probe; add chain inet probe passed { type filter hook postrouting priority 0; };
     add rule inet probe passed ct state new,established meta l4proto udp counter`,
  );
}

export function passed(): number {
  const { nftables } = JSON.parse(run('nft', '-j', 'list', 'chain', 'inet', 'probe', 'passed')) as {
    nftables: { rule?: { expr: { counter?: { packets: number } }[] } }[];
  };
  return nftables.flatMap(({ rule }) => rule?.expr ?? []).find(({ counter }) => counter !== undefined)
    ?.counter?.packets as number;
}

/** A socket of one namespace for datagrams to the other. */
export class Sender {
  readonly #fd: number;
  readonly #family: Family;

  constructor(namespace: 'inner' | 'outer', family: Family, port: number) {
    this.#family = family;
    this.#fd = inNamespace(`/run/netns/${namespace}`, () =>
      checked('socket', libc().socket(family === 'ip' ? 2 : 10, 2, 0)),
    );
    const address = (namespace === 'inner' ? INNER : OUTER)[family];
    const bytes = socketAddress(family, address, port);
    checked('bind', libc().bind(this.#fd, bytes, bytes.length));
  }

  /** On its way, and through or lost, when this returns. */
  send(to: string, port: number): void {
    const bytes = socketAddress(this.#family, to, port);
    try {
      checked('sendto', libc().sendto(this.#fd, Buffer.from('x'), 1, 0, bytes, bytes.length));
    } catch {
      // The answer to an earlier one that was rejected; this one was not sent then.
      checked('sendto', libc().sendto(this.#fd, Buffer.from('x'), 1, 0, bytes, bytes.length));
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** struct sockaddr_in: family u16, port be16, address; struct sockaddr_in6: family, port, flow u32, address, scope u32 */
function socketAddress(family: Family, address: string, port: number): Buffer {
  const parsed = parseAddress(address);
  if (parsed === undefined) throw new Error(address);
  const head = Buffer.of(family === 'ip' ? 2 : 10, 0, port >> 8, port & 0xff);
  return family === 'ip'
    ? Buffer.concat([head, addressBytes(parsed), Buffer.alloc(8)])
    : Buffer.concat([head, Buffer.alloc(4), addressBytes(parsed), Buffer.alloc(4)]);
}
