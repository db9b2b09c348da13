import * as assert from 'uvu/assert';
import { run, sh } from '../../../support/variants.ts';
import { add, call, config, node, scene, tcp, udp } from '../../../support/portmap-scene.ts';
import {
  ask,
  bad,
  good,
  HOST,
  makeContainer,
  removeContainer,
  type Container,
} from '../../../support/port-host.ts';

/**
 * On a host where the reference forwarded ports with its nftables backend, which Debian's release does not have: its rules are
 * written here as its main branch writes them.
 */
const s = scene("rules that the reference's nftables backend left", 'nftables');

function referenceAdd(
  { id, ipv4, ipv6 }: Pick<Container, 'id' | 'ipv4' | 'ipv6'>,
  port: number,
  hostIP = '',
): void {
  for (const [family, address, host] of [
    ['ip', ipv4, hostIP === '' ? '' : `ip daddr ${hostIP}`],
    ['ip6', `[${ipv6}]`, ''],
  ] as const) {
    const table = `${family} cni_hostport`;
    const bare = address.replaceAll(/[[\]]/g, '');
    const lines = [
      `add table ${table} { comment "CNI portmap plugin" ; }`,
      ...['hostports', 'hostip_hostports', 'hostports_all'].map((chain) => `add chain ${table} ${chain}`),
      `flush chain ${table} hostports_all`,
      `add rule ${table} hostports_all jump hostip_hostports`,
      `add rule ${table} hostports_all jump hostports`,
      ...['prerouting', 'output'].flatMap((hook) => [
        `add chain ${table} ${hook} { type nat hook ${hook} priority -100 ; }`,
        `flush chain ${table} ${hook}`,
        `add rule ${table} ${hook} fib daddr type local jump hostports_all`,
      ]),
      `add chain ${table} masquerading { type nat hook postrouting priority 100 ; }`,
      ...['tcp', 'udp'].map(
        (protocol) =>
          `add rule ${table} hostports ${host} ${protocol} dport ${port} dnat to ${address}:80 comment "${id}"`,
      ),
      `add rule ${table} masquerading ${family} saddr ${bare} ${family} daddr ${bare} masquerade comment "${id}"`,
    ];
    for (const line of lines) run('nft', line);
  }
}
const theirs = (): string =>
  ['ip', 'ip6'].map((family) => run('nft', 'list', 'table', family, 'cni_hostport')).join('');

for (const backend of ['nftables', 'iptables']) {
  s.test(`DEL removes its rules and their UDP flows, and no others, on a node of ${backend}`, () => {
    node({ backend });
    referenceAdd(s.c1, 9002);
    referenceAdd(s.c2, 9003);
    assert.match(ask('outside', 'udp', HOST.ipv4, 9002, { sourcePort: 40020 }), /^one/);
    assert.match(ask('outside', 'udp', HOST.ipv4, 9003, { sourcePort: 40021 }), /^two/);
    good('portmap', 'DEL', { ...s.c1, netns: '' }, config(undefined, undefined));
    assert.not.match(theirs(), /"c1"/);
    assert.match(theirs(), /"c2"/);
    const flows = sh('conntrack -L -p udp');
    assert.not.match(flows, /sport=40020/);
    assert.match(flows, /sport=40021/);
  });

  s.test(`CHECK lets its containers be, and a second ADD takes them over, on a node of ${backend}`, () => {
    node({ backend });
    const mappings = [tcp(9002), udp(9002)];
    referenceAdd(s.c1, 9002);
    call('CHECK', s.c1, mappings);
    run('nft', 'flush chain ip cni_hostport hostports');
    assert.match(bad('portmap', 'CHECK', s.c1, config(s.c1, mappings)).msg, /port mappings are incomplete/);
    referenceAdd(s.c2, 9003);
    add(s.c1, mappings);
    assert.not.match(theirs(), /"c1"/);
    assert.match(theirs(), /"c2"/);
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^one/);
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9003), /^two/);
  });

  s.test(
    `a port that one of its living containers holds is refused, a dead one’s taken over, on a node of ${backend}`,
    () => {
      node({ backend });
      referenceAdd(s.c1, 9002, HOST.ipv4);
      const error = bad('portmap', 'ADD', s.c2, config(s.c2, [tcp(9002)]));
      assert.is(error.code, 11);
      assert.is(
        error.msg,
        'host port 9002/tcp on 192.0.2.1 is already in use by running container c1 (10.88.0.11)',
      );
      assert.not.match(s.ruleset(), /CNI-DN/);
      run('nft', 'flush ruleset');
      const dead = makeContainer('dead', 66);
      referenceAdd(dead, 9002);
      removeContainer(dead);
      const { log } = add(s.c2, [tcp(9002)]);
      assert.match(
        log,
        /host port 9002\/tcp: taken over from container dead \(10\.88\.0\.66\): no network namespace/,
      );
      assert.not.match(theirs(), /"dead"/);
      assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^two/);
    },
  );
}

s.test.run();
