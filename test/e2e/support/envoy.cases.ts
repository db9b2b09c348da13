import * as assert from 'uvu/assert';
import { PROXY_UID } from '../../../examples/countdash/plan.ts';
import { suite } from '../../support/suite.ts';
import { Agent } from './agent.ts';
import { HOST, OUTSIDE, sh } from './client-host.ts';
import {
  APP_UID,
  envoyMissing,
  EnvoyScene,
  EXCLUDED,
  FREE_UID,
  PORTS,
  VIRTUAL,
  type EnvoyBackend,
  type Side,
} from './envoy-scene.ts';

/**
 * What the rules of transparent proxy and a real Envoy do to packets together. Every test leaves both Envoys running; the allocations are
 * attached once.
 */
export function testEnvoy(on: EnvoyBackend): void {
  const test = suite(`Envoy on ${on.name}`, { limit: 60 });
  if (envoyMissing !== undefined) {
    test.skip('the behaviour table', envoyMissing);
    test.run();
    return;
  }
  let scene: EnvoyScene;
  test.before(async () => {
    scene = await EnvoyScene.make(on);
  });
  test.after(() => scene.end());

  test('captured: outgoing connections pass through Envoy, to the mesh and to other destinations', async () => {
    const { caller } = scene;
    const before = caller.statistics();
    assert.match(
      await caller.allocation.as(APP_UID).tcp(OUTSIDE.ipv4, PORTS.outside),
      `outside ${HOST.ipv4}`,
    );
    assert.match(await caller.peer.tell({ do: 'open', ...VIRTUAL }), /^\d+$/);
    const after = caller.statistics();
    assert.is(after.passedThrough, before.passedThrough + 1);
    assert.is(after.handshakesOut, before.handshakesOut + 1);
  });

  test('excluded: port, CIDR and user go around Envoy, and an excluded port of the service is open', async () => {
    const { caller, api, host } = scene;
    const before = caller.statistics();
    const app = caller.allocation.as(APP_UID);
    assert.match(await app.tcp(OUTSIDE.ipv4, EXCLUDED.outboundPort), `outside ${HOST.ipv4}`);
    assert.match(await app.tcp(EXCLUDED.address, PORTS.outside), `outside ${HOST.ipv4}`);
    assert.match(
      await caller.allocation.as(FREE_UID).tcp(OUTSIDE.ipv4, PORTS.outside),
      `outside ${HOST.ipv4}`,
    );
    assert.match(await host.tcp(api.address, PORTS.excludedIn), /^excluded /);
    assert.equal(caller.statistics(), before);
  });

  test('incoming connections reach the service only with a certificate of the mesh', () => {
    const { caller, api } = scene;
    const before = api.statistics();
    const own = `http://${api.address}:${PORTS.app}/`;
    const published = `http://${HOST.ipv4}:${api.allocation.group.proxyPort}/`;
    for (const [netns, url] of [
      [undefined, own],
      [undefined, published],
      [OUTSIDE.name, published],
      [caller.allocation.group.netns, own],
    ] as const) {
      assert.throws(() => plainHttp(netns, url), /curl: \((1|52|56)\)/, url);
    }
    const after = api.statistics();
    assert.is(after.failedIn, before.failedIn + 4);
    assert.is(after.allowed, before.allowed);
  });

  test('DNS over UDP and TCP goes to Consul, from the program and from Envoy', async () => {
    const { netns } = scene.caller.allocation.group;
    // Not allocation.as(): a process that stays would be reported by CHECK, because it has the proxy's user.
    const proxy = new Agent(netns, PROXY_UID);
    for (const agent of [scene.caller.allocation.as(APP_UID), proxy]) {
      assert.match(await agent.udp(HOST.ipv4, 53), /^consul-dns /);
      assert.match(await agent.tcp(HOST.ipv4, 53), /^consul-dns /);
    }
    proxy.stop();
    await proxy.ended;
  });

  test('HTTP/2, gRPC, half-closed connections and 32 MB in each direction arrive complete', async () => {
    const { peer } = scene.caller;
    const greetings = Array.from({ length: 20 }, (_, at) => `hello ${at}`).join(' ');
    assert.is(await peer.tell({ do: 'http2', ...VIRTUAL }), greetings);
    assert.is(await peer.tell({ do: 'grpc', ...VIRTUAL }), 'count 1|count 2|count 3 status 0');
    assert.is(await peer.tell({ do: 'half-close', ...VIRTUAL }), '4 then 1048577');
    assert.is(await peer.tell({ do: 'transfer', ...VIRTUAL, megabytes: 32 }), 'up ok, down ok');
  });

  test('a long-lived connection survives a second ADD and CHECK of both allocations', async () => {
    const { caller, api } = scene;
    const connection = await openConnection(caller);
    const result = caller.allocation.add();
    api.allocation.add();
    for (const { allocation } of [caller, api]) allocation.check();
    assert.match(result.ips[0]?.address ?? '', caller.address);
    await assertAlive(caller, connection);
    await openConnection(caller);
  });

  test('hot restart: connections live until the old process ends, and no new connection fails', async () => {
    const { caller } = scene;
    const connection = await openConnection(caller);
    await caller.peer.tell({ do: 'call-often', ...VIRTUAL });
    const restarted = caller.hotRestart();
    await assertAlive(caller, connection);
    await restarted;
    assert.is(await caller.peer.tell({ do: 'stop-calling' }), 'many made, 0 failed');
    await openConnection(caller);
  });

  test("stopped: without the caller's Envoy every outgoing connection is refused; after its start all is well", async () => {
    const { caller, outside } = scene;
    assert.ok(outside);
    const connection = await openConnection(caller);
    await caller.stopEnvoy();
    assert.is(await caller.peer.tell({ do: 'say', connection, text: 'E still there?' }), 'closed');
    const app = caller.allocation.as(APP_UID);
    for (const [host, port] of [
      [VIRTUAL.host, VIRTUAL.port],
      [OUTSIDE.ipv4, PORTS.outside],
      [scene.api.address, PORTS.app],
    ] as const) {
      assert.is(await app.tcp(host, port), 'error ECONNREFUSED', host);
    }
    caller.allocation.check();
    await caller.startEnvoy();
    await openConnection(caller);
  });

  test("stopped: without the service's Envoy its ports are refused, and no request reaches the program", async () => {
    const { caller, api, host } = scene;
    await api.stopEnvoy();
    assert.is(await host.tcp(api.address, PORTS.app), 'error ECONNREFUSED');
    assert.is(await host.tcp(api.address, api.allocation.group.proxyPort), 'error ECONNREFUSED');
    assert.is(await caller.allocation.as(FREE_UID).tcp(api.address, PORTS.app), 'error ECONNREFUSED');
    assert.match(await caller.peer.tell({ do: 'open', ...VIRTUAL }), /^(closed|error (ECONNRESET|EPIPE))$/);
    api.allocation.check();
    await api.startEnvoy();
    await openConnection(caller);
  });

  test.run();
}

async function openConnection({ peer }: Side): Promise<number> {
  const connection = Number(await peer.tell({ do: 'open', ...VIRTUAL }));
  await assertAlive({ peer }, connection);
  return connection;
}

async function assertAlive({ peer }: Pick<Side, 'peer'>, connection: number): Promise<void> {
  assert.is(await peer.tell({ do: 'say', connection, text: 'E hello' }), 'E hello');
}

/** As root: in an allocation that is captured like any program. */
function plainHttp(netns: string | undefined, url: string): string {
  return sh(`${netns === undefined ? '' : `ip netns exec ${netns} `}curl --noproxy '*' -sS -m 5 ${url}`);
}
