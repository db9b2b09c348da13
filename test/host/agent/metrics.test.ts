/** The agent's metrics beside what `weft status`, the kernel and the agent's log say. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { statusSchema } from '../../../cli/status/report.ts';
import { sh } from '../../e2e/support/client-host.ts';
import { executable } from '../../support/executables.ts';
import { BRIDGE, launchersMissing, LAUNCHERS, NodeAgent } from '../../support/node-agent.ts';
import { violations } from '../../support/prometheus.ts';
import { suite } from '../../support/suite.ts';
import { useVariant } from '../../support/variants.ts';
import { addContainer, networkList } from './repair/scene.ts';

const test = suite('metrics of the agent', { limit: 60 });
const URL = 'http://127.0.0.1:9477';

function configure(config: object): void {
  mkdirSync('/etc/weft', { recursive: true });
  writeFileSync('/etc/weft/weft.json', JSON.stringify(config));
}

async function logged(agent: NodeAgent, pattern: RegExp): Promise<void> {
  for (const end = Date.now() + 15_000; Date.now() < end;) {
    if (pattern.test(agent.log)) return;
    await pause(50);
  }
  assert.unreachable(`${pattern.source} is not in the log: ${agent.log}`);
}

/** An agent that serves metrics. */
async function startAgent(): Promise<NodeAgent> {
  const agent = await NodeAgent.start();
  await logged(agent, /^metrics: http:\/\/127\.0\.0\.1:9477\/metrics$/m);
  return agent;
}

/** Every sample by name and labels. */
async function scrape(): Promise<{ text: string; value: (sample: string) => number | undefined }> {
  const response = await fetch(`${URL}/metrics`);
  const text = await response.text();
  assert.is(response.status, 200, text);
  const values = new Map(
    text.split('\n').map((line) => [line.replace(/ \S+$/, ''), Number(line.split(' ').at(-1))]),
  );
  return { text, value: (sample) => values.get(sample) };
}

test.before(() => {
  useVariant('nft');
  for (const number of [1, 2]) addContainer(networkList('iptables', 0), number);
  addContainer(networkList('nftables', 1), 1);
  addContainer(networkList('nftables', 1), 2);
  sh('ip netns del net1-c2');
});

test.after(() => NodeAgent.killAll());

test('off by default: nothing listens, and prom-client is not loaded', async () => {
  const agent = await NodeAgent.start();
  assert.is(sh('ss -Hltn | wc -l').trim(), '0');
  await agent.stop();
  assert.not.match(agent.log, 'metrics');
});

test('the text is valid, and agrees with weft status and the kernel', async () => {
  configure({ metrics: '127.0.0.1:9477', repair: 'log' });
  const agent = await startAgent();
  assert.match(sh('ss -Hltn'), /127\.0\.0\.1:9477/);
  const { text, value } = await scrape();
  assert.equal(violations(text), []);
  const promtool = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  if (promtool.error === undefined) assert.is(promtool.status, 0, promtool.stdout + promtool.stderr);
  const { stdout } = spawnSync(executable('weft'), ['status', '--json', '--no-check'], { encoding: 'utf8' });
  const { attachments, networks } = statusSchema.parse(JSON.parse(stdout));
  assert.is(attachments.length, 4);
  for (const network of networks) {
    const own = attachments.filter((one) => one.network === network.name);
    for (const state of ['running', 'gone', 'unknown'])
      assert.is(
        value(`weft_attachments{network="${network.name}",state="${state}"}`),
        own.filter((one) => one.state === state).length,
      );
    const ports = own.filter(({ state }) => state === 'running').flatMap((one) => one.ports);
    for (const protocol of ['tcp', 'udp'])
      assert.is(
        value(`weft_port_mappings{network="${network.name}",protocol="${protocol}"}`),
        ports.filter((port) => port.protocol === protocol).length,
      );
    for (const { subnet, size, used } of network.pools) {
      const labels = `{network="${network.name}",subnet="${subnet}"}`;
      assert.is(value(`weft_addresses_used${labels}`), used);
      assert.is(value(`weft_addresses_free${labels}`), size === null ? undefined : size - used);
    }
  }
  // What the kernel has: a rule of each family for each port and protocol.
  const forwarded = [
    ['net0', "iptables -t nat -S | grep -c -- '-j DNAT'"],
    ['net0', "ip6tables -t nat -S | grep -c -- '-j DNAT'"],
    ['net1', "nft list table ip weft_hostports | grep -c 'dnat to 10\\.101\\.0\\.2:80'"],
  ] as const;
  for (const [network, count] of forwarded) {
    const [tcp = 0, udp = 0] = ['tcp', 'udp'].map((protocol) =>
      value(`weft_port_mappings{network="${network}",protocol="${protocol}"}`),
    );
    assert.is(tcp + udp, Number(sh(count)), count);
  }
  const namespaces = sh('ip netns list').split('\n').filter(Boolean);
  assert.is(
    namespaces.length,
    (value('weft_attachments{network="net0",state="running"}') ?? 0) +
      (value('weft_attachments{network="net1",state="running"}') ?? 0),
  );
  const before = value('weft_ruleset_generation') ?? 0;
  sh('nft add table inet other; nft delete table inet other');
  assert.is((await scrape()).value('weft_ruleset_generation'), before + 2);
  const resident = /^VmRSS:\s+(\d+) kB$/m.exec(
    readFileSync(`/proc/${agent.process.pid}/status`, 'utf8'),
  )?.[1];
  const ratio = (value('process_resident_memory_bytes') ?? 0) / (Number(resident) * 1024);
  assert.ok(ratio > 0.8 && ratio < 1.25, `resident memory: ${ratio} of what the kernel says`);
  assert.is(await agent.stop(), 0);
});

test('repairs and leaks', async () => {
  configure({ metrics: '127.0.0.1:9477', gc: 'log' });
  sh(
    'touch -d "1 hour ago" /var/lib/cni/results/net1-net1-c2-eth0 $(grep -l net1-c2 /var/lib/cni/networks/net1/*)',
  );
  sh('iptables -t nat -F');
  const agent = await startAgent();
  await logged(agent, /repair: restored/);
  const { value } = await scrape();
  assert.is(value('weft_leaked_containers'), 1);
  assert.is(value('weft_repairs_total'), 1);
  const [, restored] = /repair: restored=(\d+)/.exec(agent.log) ?? [];
  assert.is(value('weft_repaired_pieces_total'), Number(restored));
  assert.is(value('weft_collected_containers_total'), 0);
  await agent.stop();
});

if (launchersMissing === undefined)
  test('calls by plugin, verb and result, also while they are many', async () => {
    const agent = await startAgent();
    writeFileSync('/run/bridge.json', JSON.stringify(BRIDGE));
    const call = (verb: string, netns: string): number =>
      spawnSync(`${LAUNCHERS}/bridge`, {
        input: readFileSync('/run/bridge.json'),
        env: {
          CNI_COMMAND: verb,
          CNI_CONTAINERID: 'm1',
          CNI_NETNS: netns,
          CNI_IFNAME: 'eth0',
          CNI_PATH: LAUNCHERS,
        },
      }).status ?? -1;
    sh('ip netns add m1');
    const netns = '/var/run/netns/m1';
    assert.is(call('ADD', netns), 0);
    assert.is(call('CHECK', netns), 1);
    assert.is(call('DEL', netns), 0);
    const { text, value } = await scrape();
    assert.equal(violations(text), []);
    const count = (verb: string, result: string): number | undefined =>
      value(`weft_call_duration_seconds_count{plugin="bridge",verb="${verb}",result="${result}"}`);
    assert.equal([count('ADD', 'ok'), count('CHECK', 'error'), count('DEL', 'ok')], [1, 1, 1]);
    assert.is((await agent.calls('bridge')).length, 3);
    const logged = Number(/ADD bridge .* ([\d.]+)ms ok/.exec(agent.log)?.[1]) / 1000;
    const sum = value('weft_call_duration_seconds_sum{plugin="bridge",verb="ADD",result="ok"}') ?? 0;
    assert.ok(Math.abs(sum - logged) < 0.001, `${sum} s, and ${logged} s in the log`);
    // A client that reads nothing must not delay plugin calls.
    const idle = connect(9477, '127.0.0.1');
    await once(idle, 'connect');
    assert.is(call('ADD', netns), 0);
    assert.is(call('DEL', netns), 0);
    idle.destroy();
    assert.is((await fetch(`${URL}/other`)).status, 404);
    assert.is((await fetch(`${URL}/metrics`, { method: 'POST' })).status, 405);
    await agent.stop();
  });
else test.skip('calls by plugin, verb and result, also while they are many', launchersMissing);

test('an address that is in use: an error in the log, calls are served, and metrics as soon as it is free', async () => {
  const other = createServer().listen(9477, '127.0.0.1');
  await once(other, 'listening');
  const agent = await NodeAgent.start();
  await logged(agent, /^metrics: cannot serve on 127\.0\.0\.1:9477: .*EADDRINUSE/m);
  other.close();
  await logged(agent, /^metrics: http:\/\/127\.0\.0\.1:9477\/metrics$/m);
  assert.equal(violations((await scrape()).text), []);
  assert.is(await agent.stop(), 0);
});

test.run();
