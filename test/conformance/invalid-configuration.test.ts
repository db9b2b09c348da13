import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { PLUGINS } from '../../plugins/index.ts';
import { errorOf, type ProcessOutcome } from '../support/plugin.ts';
import { suite } from '../support/suite.ts';
import { sample } from '../support/thorough.ts';
import { call, changes, NS, prepareHost, sh, state, succeeds, type Name } from './calls.ts';
import { CASES } from './cases.ts';
import { MISTAKES, type Mistake } from './mistakes.ts';

/**
 * Every plugin with every mistake in every key. ADD rejects it and changes nothing. DEL removes what an ADD with the valid configuration
 * made. CHECK of an edited list must not fail, because Nomad would destroy the network of a healthy allocation.
 */
const test = suite('conformance: invalid configuration', { limit: 180 });

test.before(prepareHost);

for (const { name } of PLUGINS) {
  const rows = MISTAKES[name];
  if (rows.length === 0) continue;

  test(`${name}: every documented key has a mistake`, () => {
    const covered = rows.flatMap(({ key, says, with: more }) => [
      key,
      says ?? '',
      ...Object.keys(more ?? {}),
    ]);
    for (const key of documentedKeys(name)) {
      assert.ok(
        covered.some((one) => one === key || one.endsWith(`.${key}`)),
        key,
      );
    }
  });

  test(`${name}: ADD answers with code 7 and the key, and changes nothing`, () => {
    const before = state();
    for (const row of sample(rows)) {
      const { code, msg } = errorOf(call(name, 'ADD', { config: mistaken(name, row) }), text(row));
      assert.is(code, 7, `${text(row)}: ${msg}`);
      assert.match(msg, row.says ?? row.key, text(row));
    }
    assert.equal(changes(before, state()), []);
  });

  test(`${name}: DEL removes what ADD made with the valid configuration`, () => {
    succeeds(call(name, 'ADD'));
    succeeds(call(name, 'DEL'));
    const before = state();
    const kinds = new Map(rows.map((row) => [`${row.key} ${row.says}`, row]));
    for (const [at, row] of sample([...kinds.values()]).entries()) {
      succeeds(call(name, 'ADD', { id: `c${at}` }), text(row));
      succeeds(call(name, 'DEL', { id: `c${at}`, config: mistaken(name, row) }), text(row));
    }
    assert.equal(changes(before, state()), []);
  });

  test(`${name}: CHECK warns, and checks the configuration of ADD if it is cached`, () => {
    const result = JSON.parse(succeeds(call(name, 'ADD')).stdout) as object;
    for (const row of sample(rows)) {
      const { stderr } = succeeds(
        call(name, 'CHECK', { config: mistaken(name, row), prevResult: result }),
        text(row),
      );
      assert.match(stderr, row.says ?? row.key, text(row));
      assert.match(stderr, 'not checked, because no valid configuration of ADD is cached', text(row));
    }
    cache(name);
    const [row] = rows;
    const check = (): ProcessOutcome =>
      call(name, 'CHECK', { config: row === undefined ? {} : mistaken(name, row), prevResult: result });
    assert.match(succeeds(check()).stderr, 'checked with the configuration of ADD');
    sh(DAMAGES[name]);
    assert.is(errorOf(check()).code, 999);
    rmSync('/var/lib/cni/results', { recursive: true });
    succeeds(call(name, 'DEL'));
  });
}

for (const name of ['bridge', 'host-local'] as const) {
  test(`${name}: a million invalid addresses requested: ADD answers with a screenful, and DEL removes what ADD made`, () => {
    succeeds(call(name, 'ADD'));
    succeeds(call(name, 'DEL'));
    const before = state();
    const began = Date.now();
    for (const [member, value] of [
      ['runtimeConfig', { ips: Array(1_000_000).fill('x') }],
      ['args', { cni: { ips: Array(1_000_000).fill(5) } }],
    ] as const) {
      const config = { ...CASES[name].config, [member]: value };
      const { code, msg } = errorOf(call(name, 'ADD', { config }), member);
      assert.is(code, 7, msg);
      assert.match(msg, 'ips" has too many entries');
      assert.ok(msg.length < 2_000, msg);
      succeeds(call(name, 'ADD'), member);
      succeeds(call(name, 'DEL', { config }), member);
    }
    const args = `IP=${'x,'.repeat(50_000)}`;
    const { code, msg } = errorOf(call(name, 'ADD', { args }), 'CNI_ARGS');
    assert.is(code, 4, msg);
    assert.ok(msg.length < 2_000, msg);
    // A description of each invalid entry took 5 to 9 s a call.
    assert.ok(Date.now() - began < 20_000);
    assert.equal(changes(before, state()), []);
  });
}

test.run();

/** Breaks what ADD made, so that CHECK must fail. */
const DAMAGES: Readonly<Record<Name, string>> = {
  loopback: '',
  bridge: 'ip -n pod link set eth0 down',
  'host-local': 'rm /var/run/cni/conformance/172.26.64.*',
  firewall: 'iptables -F CNI-FORWARD',
  portmap: 'iptables -t nat -F CNI-HOSTPORT-DNAT',
  'consul-tproxy': 'ip netns exec pod iptables -t nat -F CONSUL_PROXY_REDIRECT',
};

/** The valid configuration with one mistake in it. */
function mistaken(name: Name, { key, value, with: more = {} }: Mistake): Readonly<Record<string, unknown>> {
  return { ...replaced(CASES[name].config, key.split('.'), value), ...more };
}

function replaced(
  config: unknown,
  [key = '', ...rest]: readonly string[],
  value: unknown,
): Readonly<Record<string, unknown>> {
  const members = config as Readonly<Record<string, unknown>> | undefined;
  return { ...members, [key]: rest.length === 0 ? value : replaced(members?.[key], rest, value) };
}

function text({ key, value, with: more }: Mistake): string {
  return `${key}: ${JSON.stringify(value)}${more === undefined ? '' : ` with ${JSON.stringify(more)}`}`;
}

/** First column of the tables in the "Configuration" section of the plugin's page. */
function documentedKeys(name: Name): string[] {
  const file = `${import.meta.dirname}/../../docs/reference/plugins/${name}.md`;
  const section = /\n## Configuration\n([^]*?)\n#{2,3} /.exec(readFileSync(file, 'utf8'))?.[1] ?? '';
  const cells = [...section.matchAll(/^\| (`[^|]*)\|/gm)].map(([, cell = '']) => cell);
  const keys = cells.flatMap((cell) => [...cell.matchAll(/`([\w.]+)`/g)].map(([, key = '']) => key));
  assert.ok(keys.length > 3, `no configuration table in ${file}`);
  // IP is a key of CNI_ARGS.
  return keys.filter((key) => key !== 'IP');
}

/** What libcni caches after an ADD with the valid configuration. */
function cache(name: Name): void {
  const { runtimeConfig = {}, ...config } = CASES[name].config;
  const list = { cniVersion: '1.1.0', name: 'conformance', plugins: [{ type: name, ...config }] };
  const entry = {
    kind: 'cniCacheV1',
    containerId: 'c',
    ifName: 'eth0',
    networkName: 'conformance',
    netns: NS,
    config: Buffer.from(JSON.stringify(list)).toString('base64'),
    capabilityArgs: runtimeConfig,
  };
  mkdirSync('/var/lib/cni/results', { recursive: true });
  writeFileSync('/var/lib/cni/results/conformance-c-eth0', JSON.stringify(entry));
}
