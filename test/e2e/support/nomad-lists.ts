import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import type { Group } from '../../../examples/countdash/plan.ts';
import { loadNetworkList, type NetworkList } from '../../../conflist/network-list.ts';
import type { Runtime } from '../../../conflist/runtime.ts';
import type { CniResult } from '../../../shared/cni/results.ts';
import { suite, type Suite } from '../../support/suite.ts';
import { Agent } from './agent.ts';
import { addressesOf, Allocation } from './allocation.ts';
import { HOST, makeClientHost, onlyThePlugins, OUTSIDE, sh, traces, useXtables } from './client-host.ts';

/**
 * Each of Nomad's four lists through an allocation's whole life, on a host whose FORWARD policy is DROP and where nothing but
 * Nomad's own chain accepts: ADD, CHECK, ADD again, CHECK, real traffic, DEL, DEL again. "server" is the allocation with the
 * static port 9002, "client" another one.
 */
const APP = 9002;
const APP_UID = 1000;
const PROXY_UID = 101;
const SOMEWHERE = 7000;
const DNS = { address: HOST.ipv4, port: 8600 };
const PROXIES = { inbound: 25001, outbound: 15001 };
const LISTS = ['nomad', 'nomad-dual-stack', 'nomad-hairpin', 'nomad-tproxy'] as const;

interface Stage {
  readonly list: NetworkList;
  readonly name: (typeof LISTS)[number];
  readonly server: Allocation;
  readonly client: Allocation;
  readonly addresses: { ipv4: string; ipv6: string };
  /** User id of programs whose connections no rule redirects. */
  readonly free: number;
}

const world: { outside?: Agent; host?: Agent; runtime?: Runtime; before: string } = { before: '' };
let stage: Stage;

export function testNomadLists(variant: 'nft' | 'legacy'): void {
  const test = suite(`Nomad's lists over iptables-${variant}`, { limit: 300 });
  test.before(async () => {
    useXtables(variant);
    makeClientHost();
    sh('iptables -P FORWARD DROP; ip6tables -P FORWARD DROP');
    world.runtime = {
      binDirs: [onlyThePlugins()],
      cacheDir: '/var/lib/cni',
      environment: process.env,
      warn: (line) => assert.unreachable(`a plugin that succeeded complains: ${line}`),
    };
    world.outside = new Agent(OUTSIDE.name);
    world.host = new Agent(undefined);
    await world.outside.serve(SOMEWHERE, 'outside');
    // On the one address, as a name server does: from a wildcard socket an answer would leave under the bridge's address.
    await world.host.serve(DNS.port, 'consul-dns', HOST.ipv4);
    world.before = traces();
  });
  test.after(() => [world.outside, world.host].forEach((agent) => agent?.stop()));
  for (const name of LISTS) {
    life(test, name);
    traffic(test, name);
    if (name === 'nomad-dual-stack') trafficOverIpv6(test);
    if (name === 'nomad-hairpin') hairpin(test);
    if (name === 'nomad-tproxy') redirects(test);
    end(test, name);
  }
  test.run();
}

function life(test: Suite, name: (typeof LISTS)[number]): void {
  test(`${name}: ADD, CHECK, ADD again, CHECK`, async () => {
    stage = newStage(name);
    const { server, client } = stage;
    const first = server.add();
    server.check();
    assert.equal(server.add(), first, 'a second ADD gives the same result');
    server.check();
    client.add();
    client.check();
    acceptableToNomad(first, server.group.netns);
    stage = { ...stage, addresses: addressesOf(first) };
    await server.as(APP_UID).serve(APP, 'app');
  });
}

/** What Nomad makes of a result: indexes within bounds, an interface in the sandbox with an address, no loopback. */
function acceptableToNomad(result: CniResult, netns: string): void {
  for (const ip of result.ips) {
    assert.is(result.interfaces[ip.interface ?? -1]?.name, 'eth0');
    assert.is(result.interfaces[ip.interface ?? -1]?.sandbox, `/var/run/netns/${netns}`);
  }
  assert.ok(result.ips.length > 0);
  assert.not(result.interfaces.some((one) => one.name === 'lo'));
  assert.is(new Set(result.interfaces.map((one) => one.name)).size, result.interfaces.length);
}

function traffic(test: Suite, name: string): void {
  test(`${name}: the host reaches the allocation`, async () => {
    assert.match(await agents().host.tcp(stage.addresses.ipv4, APP), /^app /);
    assert.match(await agents().host.udp(stage.addresses.ipv4, APP), /^app /);
  });
  for (const protocol of ['tcp', 'udp'] as const) {
    test(`${name}: outside reaches ${HOST.ipv4}:${APP} over ${protocol}, seen with its own address`, async () => {
      assert.match(await agents().outside[protocol](HOST.ipv4, APP), `app ${OUTSIDE.ipv4}`);
    });
    test(`${name}: the host reaches its own ${APP} by each of its addresses over ${protocol}`, async () => {
      for (const address of ['127.0.0.1', HOST.ipv4])
        assert.match(await agents().host[protocol](address, APP), /^app /, address);
    });
    test(`${name}: another allocation reaches it directly and through the host's port over ${protocol}`, async () => {
      const { client, free, addresses } = stage;
      assert.match(await client.as(free)[protocol](addresses.ipv4, APP), /^app /);
      assert.match(await client.as(free)[protocol](HOST.ipv4, APP), /^app /);
    });
    test(`${name}: an allocation reaches outside under the host's address over ${protocol}`, async () => {
      const { server, free } = stage;
      assert.match(await server.as(free)[protocol](OUTSIDE.ipv4, SOMEWHERE), `outside ${HOST.ipv4}`);
    });
  }
  test(`${name}: a port without a mapping stays closed from outside`, async () => {
    await stage.server.as(APP_UID).serve(9003, 'not mapped');
    assert.match(await agents().outside.tcp(HOST.ipv4, 9003), /^error/);
  });
}

function trafficOverIpv6(test: Suite): void {
  for (const protocol of ['tcp', 'udp'] as const) {
    test(`over IPv6, ${protocol}: host, outside, another allocation, and the way out`, async () => {
      const { addresses, server, client } = stage;
      assert.match(await agents().host[protocol](addresses.ipv6, APP), /^app /);
      assert.match(await agents().outside[protocol](HOST.ipv6, APP), `app ${OUTSIDE.ipv6}`);
      assert.match(await agents().host[protocol](HOST.ipv6, APP), /^app /);
      assert.match(await client.as(APP_UID)[protocol](addresses.ipv6, APP), /^app /);
      assert.match(await client.as(APP_UID)[protocol](HOST.ipv6, APP), /^app /);
      assert.match(await server.as(APP_UID)[protocol](OUTSIDE.ipv6, SOMEWHERE), `outside ${HOST.ipv6}`);
    });
  }
}

function hairpin(test: Suite): void {
  for (const protocol of ['tcp', 'udp'] as const) {
    test(`hairpin: the allocation reaches its own port of the host over ${protocol}`, async () => {
      assert.match(await stage.server.as(APP_UID)[protocol](HOST.ipv4, APP), /^app /);
    });
  }
}

function redirects(test: Suite): void {
  test('transparent proxy: outgoing connections come to the proxy, which learns where they were going', async () => {
    const { server } = stage;
    await server.as(PROXY_UID).serve(PROXIES.outbound, 'outbound');
    assert.match(await server.as(APP_UID).tcp(OUTSIDE.ipv4, SOMEWHERE), `${OUTSIDE.ipv4}:${SOMEWHERE}`);
    assert.match(await server.as(APP_UID).tcp('240.0.0.1', 80), '240.0.0.1:80');
  });
  test('transparent proxy: the proxy itself, the loopback and udp are left alone', async () => {
    const { server } = stage;
    assert.match(await server.as(PROXY_UID).tcp(OUTSIDE.ipv4, SOMEWHERE), `outside ${HOST.ipv4}`);
    assert.match(await server.as(APP_UID).tcp('127.0.0.1', APP), /^app 127\.0\.0\.1/);
    assert.match(await server.as(APP_UID).udp(OUTSIDE.ipv4, SOMEWHERE), `outside ${HOST.ipv4}`);
  });
  test('transparent proxy: incoming connections come to the proxy, except to the static port', async () => {
    const { server, client, addresses } = stage;
    await server.as(PROXY_UID).serve(PROXIES.inbound, 'inbound');
    assert.match(
      await client.as(PROXY_UID).tcp(addresses.ipv4, 9001),
      new RegExp(`^inbound .* ${addresses.ipv4}:9001`),
    );
    assert.match(await agents().outside.tcp(HOST.ipv4, PROXIES.inbound), `inbound ${OUTSIDE.ipv4}`);
    assert.match(await client.as(PROXY_UID).tcp(addresses.ipv4, APP), /^app /);
  });
  test("transparent proxy: questions to the host's port 53 come to Consul's DNS, from any user", async () => {
    const { server } = stage;
    for (const uid of [APP_UID, PROXY_UID]) {
      assert.match(await server.as(uid).udp(HOST.ipv4, 53), /^consul-dns /);
      assert.match(await server.as(uid).tcp(HOST.ipv4, 53), /^consul-dns /);
    }
    assert.match(
      readFileSync(`/etc/netns/${server.group.netns}/resolv.conf`, 'utf8'),
      new RegExp(`^nameserver ${HOST.ipv4}$`, 'm'),
    );
  });
}

function end(test: Suite, name: string): void {
  test(`${name}: DEL, DEL again: no trace of the allocations`, async () => {
    const { server, client, addresses } = stage;
    for (const allocation of [server, client]) {
      allocation.delete();
      allocation.delete();
      allocation.close();
    }
    assert.match(await agents().outside.tcp(HOST.ipv4, APP), 'error ECONNREFUSED');
    const left = traces()
      .split('\n')
      .filter((line) => !world.before.split('\n').includes(line));
    const shared =
      /^link nomad$|CNI-FORWARD|CNI-HOSTPORT-|NOMAD-ADMIN|^\/run\/cni(\/nomad(\/lock|\/last_reserved_ip\.\d)?)?$|^\/var\/lib\/cni\/results$/;
    assert.equal(
      left.filter((line) => !shared.test(line)),
      [],
    );
    const marks = [server.group.allocId, client.group.allocId, `${addresses.ipv4}/32`];
    assert.equal(
      left.filter((line) => marks.some((mark) => line.includes(mark))),
      [],
    );
    assert.not(existsSync(`/etc/netns/${server.group.netns}`));
  });
}

function newStage(name: (typeof LISTS)[number]): Stage {
  const list = loadNetworkList(resolve(import.meta.dirname, `../../../conflist/${name}.conflist`));
  const transparent = name === 'nomad-tproxy';
  const { runtime } = world;
  if (runtime === undefined) throw new Error('the host is not made');
  const dns = transparent ? DNS : undefined;
  const port = (label: string, number: number, reserved: boolean) => ({
    label,
    host: number,
    to: number,
    reserved,
  });
  const http = [
    port('http', APP, true),
    ...(transparent ? [port('connect-proxy-server', PROXIES.inbound, false)] : []),
  ];
  return {
    name,
    list,
    server: new Allocation(runtime, list, group('server', PROXIES.inbound, http), dns),
    client: new Allocation(runtime, list, group('client', PROXIES.inbound + 1, []), dns),
    addresses: { ipv4: '', ipv6: '' },
    free: transparent ? PROXY_UID : APP_UID,
  };
}

function group(name: string, proxyPort: number, ports: Group['ports']): Group {
  const allocId = randomUUID();
  return {
    name,
    service: name,
    allocId,
    netns: allocId,
    ports,
    appPort: APP,
    proxyPort,
    virtualAddress: '240.0.0.1',
  };
}

function agents(): { outside: Agent; host: Agent } {
  const { outside, host } = world;
  if (outside === undefined || host === undefined) throw new Error('the host is not made');
  return { outside, host };
}
