import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../support/suite.ts';
import { rounds } from '../../support/thorough.ts';
import { startPluginProcess, variables } from '../../support/plugin.ts';
import type { PluginName } from '../../support/executables.ts';
import { node, type Filter } from '../../support/portmap-scene.ts';
import { ask, HOST, makeWorld, serve, useHostVariant } from '../../support/port-host.ts';
import { rules, run, sh } from '../../support/variants.ts';

const COUNT = rounds(40, 16);
const PORTS = 2;
const ids = Array.from({ length: COUNT }, (_, at) => `alloc${at}`);

interface Plugin {
  readonly type: PluginName;
  readonly capabilities?: unknown;
}

/** Nomad's list; no plugin names a backend, so that the node's choice counts for all. */
const plugins = (
  JSON.parse(readFileSync(resolve(import.meta.dirname, '../../../conflist/nomad.conflist'), 'utf8')) as {
    plugins: (Plugin & { backend?: string })[];
  }
).plugins.map((plugin) => ({ ...plugin, backend: '' }));

/** Many chains at once, the first ever on their host: none fails, and nothing is there twice. */
export function burst(filter: Filter): void {
  const test = suite(`${COUNT} chains at once on a fresh host, ${filter}`, { limit: 240 });
  const results = new Map<string, Result>();

  test.before(() => {
    useHostVariant(filter === 'nftables' ? 'nft' : filter);
    if (filter === 'nftables') node({ backend: 'nftables' });
    makeWorld();
    for (const id of ids) sh(`ip netns add ${id}`);
  });

  test('no chain fails, and each container has an address of its own', async () => {
    const made = await Promise.all(ids.map(async (id) => [id, await chain('ADD', id)] as const));
    for (const [id, result] of made) results.set(id, result as Result);
    const addresses = made.map(([, result]) => (result as Result).ips[0]?.address);
    assert.is(new Set(addresses).size, COUNT);
    const gateways = run('ip', '-4', '-o', 'addr', 'show', 'dev', 'nomad').trim().split('\n');
    assert.is(gateways.length, 1);
  });

  test('no rule is there twice, and the shared ones are in their order', () => {
    if (filter === 'nftables') onceOnNftables();
    else onceOnIptables();
  });

  test('CHECK of each passes, all at once', async () => {
    await Promise.all(ids.map((id) => chain('CHECK', id, results.get(id))));
  });

  test('the first and the last are reached from outside by both their ports', async () => {
    for (const at of [0, COUNT - 1]) {
      const ports = portsOf(ids[at] ?? '');
      const server = await serve(ids[at] ?? '', `app${at}`, ...ports);
      for (const port of ports)
        for (const protocol of ['tcp', 'udp'] as const)
          assert.match(ask('outside', protocol, HOST.ipv4, port), new RegExp(`^app${at} 192`));
      server.kill();
    }
  });

  test('DEL of all at once leaves nothing of any', async () => {
    await Promise.all(ids.map((id) => chain('DEL', id, results.get(id))));
    const left = `${run('nft', 'list', 'ruleset')}${rules('nat').join('\n')}${rules('filter').join('\n')}`;
    assert.not.match(left, /alloc\d|172\.26\.\d+\.\d+[ /](?!20)|CNI-DN-/);
    assert.is(run('ip', '-o', 'link', 'show', 'type', 'veth').match(/veth[0-9a-f]{8}/g), null);
  });

  test.run();
}

interface Result {
  readonly ips: readonly { readonly address: string }[];
}

async function chain(command: string, id: string, known?: Result): Promise<unknown> {
  let prevResult: unknown = known;
  for (const plugin of command === 'DEL' ? plugins.toReversed() : plugins) {
    const { capabilities, ...config } = plugin;
    const portMappings = portsOf(id).flatMap((port) =>
      ['tcp', 'udp'].map((Protocol) => ({ HostPort: port, ContainerPort: port, Protocol, HostIP: '' })),
    );
    const { exitCode, stdout, stderr } = await startPluginProcess(plugin.type, {
      command,
      patience: 200_000,
      env: variables({ id, netns: `/run/netns/${id}` }),
      stdin: {
        ...config,
        name: 'nomad',
        cniVersion: '1.0.0',
        ...(capabilities === undefined ? {} : { runtimeConfig: { portMappings } }),
        ...(prevResult === undefined ? {} : { prevResult }),
      },
    });
    assert.is(exitCode, 0, `${plugin.type} ${command} ${id}: ${stdout}${stderr}`);
    if (command === 'ADD') prevResult = JSON.parse(stdout);
  }
  return prevResult;
}

function portsOf(id: string): number[] {
  const first = 21_000 + PORTS * Number(id.slice('alloc'.length));
  return Array.from({ length: PORTS }, (_, at) => first + at);
}

function onceOnIptables(): void {
  for (const table of ['nat', 'filter']) {
    const lines = rules(table);
    assert.equal(
      lines.filter((line, at) => lines.indexOf(line) !== at),
      [],
      `twice in ${table}`,
    );
  }
  const of = (table: string, chain: string): string[] =>
    rules(table).filter((line) => line.startsWith(`-A ${chain} `));
  assert.match(of('filter', 'FORWARD')[0] ?? '', /-j CNI-FORWARD$/);
  assert.match(of('filter', 'CNI-FORWARD')[0] ?? '', /-j NOMAD-ADMIN$/);
  assert.is(of('filter', 'CNI-FORWARD').length, 1 + 2 * COUNT);
  assert.match(of('nat', 'POSTROUTING')[0] ?? '', /-j CNI-HOSTPORT-MASQ$/);
  assert.is(of('nat', 'POSTROUTING').length, 1 + COUNT);
  assert.is(of('nat', 'CNI-HOSTPORT-DNAT').length, 2 * COUNT);
  for (const chain of ['PREROUTING', 'OUTPUT', 'CNI-HOSTPORT-SETMARK', 'CNI-HOSTPORT-MASQ'])
    assert.is(of('nat', chain).length, 1, chain);
}

function onceOnNftables(): void {
  assert.equal([...rules('nat'), ...rules('filter')], [], 'nothing of iptables');
  const lines = run('nft', 'list', 'ruleset').split('\n');
  const count = (pattern: RegExp): number => lines.filter((line) => pattern.test(line)).length;
  for (const [pattern, wanted] of [
    [/^\tchain CNI-DN-/, COUNT],
    [/ : jump CNI-DN-/, 2 * PORTS * COUNT],
    [/dport \d+ dnat to /, 2 * PORTS * COUNT],
    [/vmap @ports/, 2],
    [/vmap @address_ports/, 2],
    [/ct status dnat .*masquerade/, 1],
    [/jump NOMAD-ADMIN/, 1],
    [/jump admin_chains/, 1],
    [/@containers4 accept/, 2],
  ] as const)
    assert.is(count(pattern), wanted, String(pattern));
  const elements = run('nft', 'list', 'set', 'inet', 'weft_firewall', 'containers4');
  assert.is(elements.match(/id: alloc\d+"/g)?.length, COUNT);
}
