import { makeNamespace, sh, startHelper } from './host.ts';

/**
 * A network beyond the host, 192.0.2.0/24 and 2001:db8::/64: the host is .1, an echo answers on .2. It knows no way back to containers.
 * Without DAD on the links: while a link-local address is tentative (up to two seconds), the kernel sends no neighbour
 * solicitation for a packet that it forwards, and an allocation's first IPv6 datagrams would be lost to the test's own world.
 */
export async function makeWorld(): Promise<void> {
  makeNamespace('world');
  sh(`
    ip link add up0 type veth peer name eth0 netns world
    echo 0 > /proc/sys/net/ipv6/conf/up0/accept_dad
    ip netns exec world sh -c 'echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad'
    ip addr add 192.0.2.1/24 dev up0
    ip addr add 2001:db8::1/64 dev up0 nodad
    ip link set up0 up
    ip -n world addr add 192.0.2.2/24 dev eth0
    ip -n world addr add 2001:db8::2/64 dev eth0 nodad
    ip -n world link set eth0 up
    ip -n world link set lo up
  `);
  await startHelper('echo.ts', 'world');
}

/** Every name under which distributions reach iptables leads through here; /etc is the test file's own. */
const ALTERNATIVES = ['', '-save', '-restore'].flatMap((verb) => [`iptables${verb}`, `ip6tables${verb}`]);

/** Which variant `iptables` is on this host; `none`: there is no such program. */
export function chooseIptables(variant: 'nft' | 'legacy' | 'none'): void {
  for (const name of ALTERNATIVES) {
    const [family = '', verb] = name.split('-');
    const program = `/usr/sbin/${family}-${variant}${verb === undefined ? '' : `-${verb}`}`;
    sh(
      variant === 'none' ? `rm -f /etc/alternatives/${name}` : `ln -sfn ${program} /etc/alternatives/${name}`,
    );
  }
}

/** Takes the nft program away, by something in its place that cannot be executed; gives the way back. */
export function hideNft(): () => void {
  sh('mount --bind /dev/null /usr/sbin/nft');
  return () => sh('umount /usr/sbin/nft');
}
