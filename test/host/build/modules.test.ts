import { execFileSync, spawnSync } from 'node:child_process';
import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { nodeBase } from '../../../build/node-binary.mjs';
import { bundle, textAssets } from '../../../build/bundle.mjs';
import { LIBC, latePartAssets, pack, tune } from '../../../build/pack.mjs';
import { executable, PLUGIN_NAMES } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';

/**
 * A built-in module that is not in the snapshot is compiled at every start, and each costs up to a millisecond; a careless touch of
 * `performance` alone loads eleven. So: what a whole chain of Nomad loads at run time is known, and is node:ffi.
 */
const test = suite('build: modules loaded at run time', { limit: 120 });

const ROOT = resolve(import.meta.dirname, '../../..');
const NOMADS = join(ROOT, 'conflist/nomad-tproxy.conflist');
const EXPECTED = ['Internal Binding ffi', ...LIBC.map((module) => `NativeModule ${module}`)];
const CHAIN = ['loopback', 'bridge', 'firewall', 'portmap', 'consul-cni'];
const CONSUL = `IgnoreUnknown=true;CONSUL_IPTABLES_CONFIG={"ConsulDNSIP":"192.0.2.1","ConsulDNSPort":8600,"ProxyUserID":"101","ProxyInboundPort":20000,"ProxyOutboundPort":15001}`;

let bin = '';
let probes = '';

test.before(async () => {
  const work = mkdtempSync('/run/probe-');
  const { file: node } = nodeBase(ROOT);
  const { late } = await bundle(ROOT, work, 'test/host/build/probe-entry.ts');
  const parts = { work, node, assets: { ...textAssets(ROOT), ...latePartAssets(late) } };
  const { file } = tune({ ...parts, packed: await pack(parts) });
  bin = join(work, 'bin');
  probes = join(work, 'probes');
  mkdirSync(bin);
  for (const name of PLUGIN_NAMES) linkSync(file, join(bin, name));
  execFileSync('ip', ['netns', 'add', 'c1']);
});

for (const verb of ['add', 'check', 'del']) {
  test(`${verb} of Nomad's list for the transparent proxy loads node:ffi and nothing else`, () => {
    expectOnlyFfi(verb, process.env['PATH'] ?? '');
  });
}

test('a plugin that starts programs loads nothing else either', () => {
  const path = `${legacyPrograms()}:${process.env['PATH'] ?? ''}`;
  expectOnlyFfi('add', path, listWithWords());
  assert.match(readFileSync('/proc/self/net/ip_tables_names', 'utf8'), /^nat$/m, 'programs wrote the rules');
  expectOnlyFfi('del', path, listWithWords());
});

test.run();

function expectOnlyFfi(verb: string, path: string, list?: string): void {
  for (const [name, loaded] of loadedBy(verb, path, list)) {
    const others = loaded.filter((module) => !EXPECTED.includes(module));
    assert.equal(others, [], `${name} ${verb}`);
  }
}

/** Name of the plugin, and what Node loaded in its process. */
function loadedBy(verb: string, path: string, list = NOMADS): Map<string, string[]> {
  rmSync(probes, { recursive: true, force: true });
  mkdirSync(probes);
  const env = { PATH: path, PROBE_FOLDER: probes };
  const { status, stderr } = spawnSync(executable('weft'), chain(verb, list), { env, encoding: 'utf8' });
  assert.is(status, 0, stderr);
  assert.equal(readdirSync(probes).sort(), [...CHAIN].sort());
  return new Map(
    CHAIN.map((name) => [name, JSON.parse(readFileSync(join(probes, name), 'utf8')) as string[]]),
  );
}

/** Nomad's list, with a condition that iptables alone understands. */
function listWithWords(): string {
  const list = JSON.parse(readFileSync(NOMADS, 'utf8')) as { plugins: { type: string }[] };
  const conditionsV4 = ['-m', 'length', '--length', '0:2000'];
  const plugins = list.plugins.map((one) => (one.type === 'portmap' ? { ...one, conditionsV4 } : one));
  const file = '/run/with-words.conflist';
  writeFileSync(file, JSON.stringify({ ...list, plugins }));
  return file;
}

/** A folder whose `iptables` and the like are the legacy ones. */
function legacyPrograms(): string {
  const folder = mkdtempSync('/run/legacy-');
  for (const program of [
    'iptables',
    'iptables-save',
    'iptables-restore',
    'ip6tables',
    'ip6tables-save',
    'ip6tables-restore',
  ]) {
    symlinkSync('/usr/sbin/xtables-legacy-multi', join(folder, program));
  }
  return folder;
}

function chain(verb: string, list: string): string[] {
  const where = ['--conflist', list, '--netns', '/run/netns/c1', '--id', 'c1', '--bin-dir', bin];
  return ['run', verb, ...where, '--port', '9002:9002/tcp', '--port', '9002:9002/udp', '--cni-args', CONSUL];
}
