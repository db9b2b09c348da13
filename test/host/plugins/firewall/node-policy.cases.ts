/** `isolation` and `egress` of /etc/weft/weft.json: complete lists with bridge, firewall and portmap, on a real kernel with real traffic. */
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import type { Attachment } from '../../../../conflist/attachment.ts';
import { parseNetworkList, type NetworkList } from '../../../../conflist/network-list.ts';
import {
  addNetwork,
  checkNetwork,
  collectGarbage,
  deleteNetwork,
  type Runtime,
} from '../../../../conflist/runtime.ts';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { binDir } from '../../../support/executables.ts';
import {
  ask,
  HOST,
  inside,
  makeWorld,
  nft,
  OUTSIDE,
  serve,
  useHostVariant,
} from '../../../support/port-host.ts';
import { suite } from '../../../support/suite.ts';
import { sh } from '../../../support/variants.ts';
import type { Filter } from './scene.ts';

/** Addresses of `outside`; METADATA and its neighbours are below what the tests deny. */
const METADATA = { ipv4: '169.254.169.254', ipv6: 'fd00:ec2::254' };
const ALLOWED = { ipv4: '169.254.1.1', ipv6: 'fd00:ec2::1' };
const EGRESS = { deny: ['169.254.0.0/16', 'fd00:ec2::/32'], allow: [ALLOWED.ipv4, ALLOWED.ipv6] };
const FAMILIES = ['ipv4', 'ipv6'] as const;
/** ICMPv6 errors are limited to one a second. */
const QUICK = { patience: 2_500 };
const FILE = '/etc/weft/weft.json';

export function nodePolicyCases(filter: Filter): void {
  const backend = filter === 'nftables' ? 'nftables' : 'iptables';
  const test = suite(`policy of the node on ${filter === 'nftables' ? filter : `iptables-${filter}`}`, {
    limit: 60,
  });
  const warnings: string[] = [];
  const servers: ChildProcess[] = [];
  const runtime: Runtime = {
    binDirs: [binDir],
    cacheDir: '/var/lib/cni',
    environment: process.env,
    warn: (line) => void warnings.push(line),
  };
  const one = list('one', 71, backend);
  const two = list('two', 72, backend);
  const [a, b, far] = [attachment('a'), attachment('b', 8080), attachment('far', 8090)];

  test.before(async () => {
    if (filter !== 'nftables') useHostVariant(filter);
    makeWorld();
    sh('ip route add default via 192.0.2.2');
    sh('ip -6 route add default via 2001:db8::2');
    for (const { ipv4, ipv6 } of [METADATA, ALLOWED]) {
      inside('outside', `ip addr add ${ipv4}/32 dev lo`);
      inside('outside', `ip addr add ${ipv6}/128 dev lo`);
    }
    for (const name of ['a', 'b', 'far']) sh(`ip netns add ${name}`);
    for (const name of ['outside', 'a', 'b', 'far']) servers.push(await serve(name, name, 80));
  });
  test.after(() => servers.forEach((server) => server.kill()));

  test('network: allocations of other networks are reached by their published ports only', () => {
    nodeConfig({ isolation: 'network' });
    const { addresses, farAddresses } = addAll();
    for (const family of FAMILIES) {
      assert.match(ask('a', 'tcp', addresses[family], 80), /^b/, 'the own network');
      assert.is(ask('a', 'tcp', farAddresses[family], 80, QUICK), 'ECONNREFUSED');
      assert.match(ask('a', 'tcp', HOST[family], 8090), /^far/, 'a published port');
    }
    assert.is(ask('far', 'udp', addresses.ipv4, 80, QUICK), 'nothing');
  });

  for (const bridged of filter === 'nft' ? [0, 1] : [0])
    test(`allocation and egress: only published ports, the outside but for the denied prefixes (br_netfilter ${bridged})`, () => {
      for (const family of ['ip', 'ip6'])
        sh(`sysctl -qw net.bridge.bridge-nf-call-${family}tables=${bridged}`);
      nodeConfig({ isolation: 'allocation', egress: EGRESS });
      const { addresses, farAddresses } = addAll();
      for (const family of FAMILIES) {
        const direct = ask('a', 'tcp', addresses[family], 80, QUICK);
        assert.match(direct, /^(nothing|EHOSTUNREACH|ECONNREFUSED)$/, 'directly');
        assert.is(ask('a', 'tcp', farAddresses[family], 80, QUICK), 'ECONNREFUSED');
        assert.match(ask('a', 'tcp', HOST[family], 8080), /^b/, 'a published port of the own network');
        assert.match(ask('outside', 'tcp', HOST[family], 8080), /^b/);
        assert.is(ask('a', 'tcp', METADATA[family], 80, QUICK), 'ECONNREFUSED');
        assert.match(ask('a', 'tcp', ALLOWED[family], 80), /^outside/);
        assert.match(ask('a', 'tcp', OUTSIDE[family], 80), /^outside/);
      }
      assert.is(ask('a', 'udp', METADATA.ipv4, 80, QUICK), 'nothing');
      assert.match(ask('', 'tcp', METADATA.ipv4, 80), /^outside/, 'the host itself');
      // By way of the gateway, which forwards what a bridge does not.
      inside('a', `ip route add ${addresses.ipv4}/32 via 10.71.0.1`);
      assert.is(ask('a', 'tcp', addresses.ipv4, 80, QUICK), 'ECONNREFUSED');
      inside('a', `ip route del ${addresses.ipv4}/32 via 10.71.0.1`);
      for (const each of [a, b]) checkNetwork(runtime, one, each);
      checkNetwork(runtime, two, far);
      assert.equal(warnings, []);
    });

  // The same code on every back end.
  if (filter === 'nft') configurationCases();

  test.run();

  function configurationCases(): void {
    test('CHECK: damage fails; a policy that was changed or added since ADD is a warning', () => {
      nodeConfig({ isolation: 'allocation', egress: EGRESS });
      sh('sysctl -qw net.bridge.bridge-nf-call-iptables=0');
      addAll();
      const chain = 'chain inet weft_policy';
      const damages: [how: () => void, says: RegExp][] = [
        [() => nft(`flush ${chain} from_networks`), /lacks the rule: oifname @networks counter reject/],
        [() => nft(`flush ${chain} forward`), /chain forward .* lacks the rule/],
        [() => nft('insert rule inet weft_policy from_networks accept'), /has other rules/],
        [() => nft('delete element inet weft_policy networks { one0 }'), /set networks .* lacks one0/],
        [() => nft('delete table inet weft_policy'), /table inet weft_policy is missing/],
        [() => sh(`bridge link set dev ${hostEnd('a')} isolated off`), /is not isolated/],
      ];
      for (const [how, says] of damages) {
        how();
        addedAt('later');
        assert.throws(() => checkNetwork(runtime, one, a), says);
        addedAt('now');
        warnings.length = 0;
        checkNetwork(runtime, one, a);
        assert.match(warnings.join('\n'), /weft\.json has changed since ADD/);
        addNetwork(runtime, one, b);
      }
    });

    test('a mistake in the file is an error of ADD that names it, a warning of CHECK, and no matter to DEL', () => {
      nodeConfig({});
      addNetwork(runtime, one, a);
      nodeConfig({ isolation: 'all', egress: { deny: ['10.0.0.1/8'] } });
      const says =
        /weft\.json: "isolation" must be one of "none", "network", "allocation", got "all"; "egress\.deny\[0\]"/;
      assert.throws(() => addNetwork(runtime, one, b), says);
      warnings.length = 0;
      checkNetwork(runtime, one, a);
      assert.match(warnings.join('\n'), says);
      deleteNetwork(runtime, one, a);
    });

    test('GC removes networks that are gone; the next ADD removes a policy that the file no longer states', () => {
      nodeConfig({ isolation: 'network' });
      addAll();
      deleteNetwork(runtime, two, far);
      sh('ip link del two0');
      const valid = [a, b].map(({ containerId, ifname }) => ({ containerID: containerId, ifname }));
      collectGarbage(runtime, one, valid);
      assert.match(nft('list set inet weft_policy networks'), /elements = \{ "one0" \}/);
      rmSync(FILE);
      addNetwork(runtime, one, a);
      assert.not.match(nft('list tables'), /weft_policy/);
    });
  }

  function addAll(): { addresses: Addresses; farAddresses: Addresses } {
    warnings.length = 0;
    addNetwork(runtime, one, a);
    const added = addNetwork(runtime, one, b);
    const addedFar = addNetwork(runtime, two, far);
    return { addresses: addressesOf(added), farAddresses: addressesOf(addedFar) };
  }

  function hostEnd(name: string): string {
    const [, index] = /eth0@if(\d+)/.exec(inside(name, 'ip -br link show dev eth0')) ?? [];
    const [, link] = new RegExp(`^${index}: ([^@]+)@`, 'm').exec(sh('ip -o link')) ?? [];
    return link ?? '';
  }
}

interface Addresses {
  readonly ipv4: string;
  readonly ipv6: string;
}

function addressesOf({ ips }: CniResult): Addresses {
  const [ipv4 = '', ipv6 = ''] = ips.map(({ address }) => address.replace(/\/.*/, ''));
  return { ipv4, ipv6 };
}

/** When the runtime cached the result of a's ADD: long after the node's configuration was written, or just now. */
function addedAt(when: 'now' | 'later'): void {
  const seconds = Date.now() / 1000 + (when === 'later' ? 120 : 0);
  utimesSync('/var/lib/cni/results/one-a-eth0', seconds, seconds);
}

function nodeConfig(config: object): void {
  mkdirSync('/etc/weft', { recursive: true });
  writeFileSync(FILE, JSON.stringify(config));
}

function attachment(name: string, port?: number): Attachment {
  const portMappings = (['tcp', 'udp'] as const).flatMap((protocol) =>
    port === undefined ? [] : [{ hostPort: port, containerPort: 80, protocol }],
  );
  return {
    containerId: name,
    netns: `/var/run/netns/${name}`,
    ifname: 'eth0',
    args: [],
    capabilityArgs: { portMappings },
  };
}

function list(name: string, subnet: number, backend: string): NetworkList {
  const ranges = [[{ subnet: `10.${subnet}.0.0/16` }], [{ subnet: `fd00:${subnet}::/64` }]];
  const routes = [{ dst: '0.0.0.0/0' }, { dst: '::/0' }];
  return parseNetworkList(
    JSON.stringify({
      cniVersion: '1.1.0',
      name,
      plugins: [
        {
          type: 'bridge',
          bridge: `${name}0`,
          isGateway: true,
          ipMasq: true,
          ipMasqBackend: backend,
          hairpinMode: true,
          ipam: { type: 'host-local', ranges, routes },
        },
        { type: 'firewall', backend, iptablesAdminChainName: 'NOMAD-ADMIN' },
        { type: 'portmap', capabilities: { portMappings: true }, snat: true, backend },
      ],
    }),
    name,
  );
}
