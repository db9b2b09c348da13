import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import type { Attachment } from '../../../conflist/attachment.ts';
import { parseNetworkList, type NetworkList } from '../../../conflist/network-list.ts';
import {
  addNetwork,
  checkNetwork,
  collectGarbage,
  deleteNetwork,
  networkStatus,
} from '../../../conflist/runtime.ts';
import { suite } from '../../support/suite.ts';
import { thrown } from '../../support/thrown.ts';
import { Bench, type Call } from './bench.ts';

/** Plugins that note each call and do what a file beside them says: real programs, so that the whole way to them is run. */
const test = suite('runtime');

const attachment: Attachment = {
  containerId: 'c1',
  netns: '/var/run/netns/c1',
  ifname: 'eth0',
  args: [['IgnoreUnknown', 'true']],
  capabilityArgs: { portMappings: [] },
};

function listOf(version = '0.4.0', extra: object = {}): NetworkList {
  const plugins = [
    { type: 'alpha' },
    { type: 'beta', capabilities: { portMappings: true } },
    { type: 'gamma' },
  ];
  return parseNetworkList(JSON.stringify({ cniVersion: version, name: 'net', plugins, ...extra }), 'list');
}

const steps = (calls: readonly Call[]): string[] =>
  calls.map(({ command, plugin }) => `${command} ${plugin}`);

test('ADD runs the plugins in order, hands on results, and caches the last one', () => {
  const bench = new Bench();
  const result = addNetwork(bench.runtime, listOf(), attachment);
  assert.equal(result.interfaces, [{ name: 'gamma' }]);
  const { calls } = bench;
  assert.equal(steps(calls), ['ADD alpha', 'ADD beta', 'ADD gamma']);
  assert.is(calls[0]?.stdin['prevResult'], undefined);
  const handed = calls[2]?.stdin['prevResult'] as { cniVersion: string; interfaces: object[]; ips: object[] };
  assert.equal([handed.cniVersion, handed.interfaces], ['0.4.0', [{ name: 'beta' }]]);
  assert.equal(handed.ips, [{ version: '4', interface: 0, address: '10.1.0.4/24' }]);
  assert.equal(calls[1]?.stdin['runtimeConfig'], { portMappings: [] });
  assert.is(calls[2]?.stdin['runtimeConfig'], undefined);
  assert.ok(existsSync(bench.cacheFile));
});

test('every plugin gets the CNI variables over the inherited environment', () => {
  const bench = new Bench();
  addNetwork(bench.runtime, listOf(), attachment);
  const { id, netns, ifname, args, path, inherited } = bench.calls[1] as Call;
  assert.equal(
    { id, netns, ifname, args, path, inherited },
    {
      id: 'c1',
      netns: '/var/run/netns/c1',
      ifname: 'eth0',
      args: 'IgnoreUnknown=true',
      path: `/nowhere:${bench.folder}`,
      inherited: 'yes',
    },
  );
});

test('an ADD that fails stops there, caches nothing, and names the plugin, its message and its code', () => {
  const bench = new Bench();
  bench.file('beta.ADD.fail', { code: 11, msg: 'busy', details: 'later' });
  const error = thrown(() => addNetwork(bench.runtime, listOf(), attachment));
  assert.equal(
    [error.code, error.message, error.details],
    [11, 'plugin type="beta" failed (add): busy', 'later'],
  );
  assert.equal(steps(bench.calls), ['ADD alpha', 'ADD beta']);
  assert.not(existsSync(bench.cacheFile));
});

test('a plugin that is not there is named, with the folders', () => {
  const bench = new Bench();
  const list = parseNetworkList('{"cniVersion":"0.4.0","name":"net","plugins":[{"type":"delta"}]}', 'list');
  const error = thrown(() => addNetwork(bench.runtime, list, attachment));
  assert.match(
    error.message,
    `plugin type="delta" failed (add): failed to find plugin "delta" in path [/nowhere ${bench.folder}]`,
  );
});

test('results are converted to the version of the list, from whatever version a plugin answers in', () => {
  const bench = new Bench();
  bench.file('alpha.result', {
    cniVersion: '1.0.0',
    interfaces: [{ name: 'eth0' }],
    ips: [{ interface: 0, address: '10.9.0.2/24' }],
  });
  bench.file('beta.result', { ips: [{ version: '4', address: '10.9.0.3/24' }] });
  addNetwork(bench.runtime, listOf('0.3.1'), attachment);
  const [, second, third] = bench.calls;
  assert.equal(second?.stdin['prevResult'], {
    cniVersion: '0.3.1',
    dns: {},
    interfaces: [{ name: 'eth0' }],
    ips: [{ address: '10.9.0.2/24', interface: 0, version: '4' }],
  });
  assert.equal((third?.stdin['prevResult'] as { ips: object[] }).ips, [
    { address: '10.9.0.3/24', version: '4' },
  ]);
});

test('CHECK gives the cached result to every plugin, in order, and stops at the first complaint', () => {
  const bench = new Bench();
  addNetwork(bench.runtime, listOf(), attachment);
  bench.forget();
  checkNetwork(bench.runtime, listOf(), attachment);
  assert.equal(steps(bench.calls), ['CHECK alpha', 'CHECK beta', 'CHECK gamma']);
  for (const { stdin } of bench.calls) {
    assert.equal((stdin['prevResult'] as { interfaces: object[] }).interfaces, [{ name: 'gamma' }]);
  }
  bench.forget();
  bench.file('beta.CHECK.fail', { code: 999, msg: 'rule gone' });
  assert.is(
    thrown(() => checkNetwork(bench.runtime, listOf(), attachment)).message,
    'plugin type="beta" failed (check): rule gone',
  );
  assert.equal(steps(bench.calls), ['CHECK alpha', 'CHECK beta']);
});

test('CHECK needs 0.4.0, and a list may forbid it', () => {
  const bench = new Bench();
  assert.is(thrown(() => checkNetwork(bench.runtime, listOf('0.3.1'), attachment)).code, 1);
  checkNetwork(bench.runtime, listOf('0.4.0', { disableCheck: true }), attachment);
  assert.equal(bench.calls, []);
});

test('DEL runs in reverse with the cached result, then drops it', () => {
  const bench = new Bench();
  addNetwork(bench.runtime, listOf(), attachment);
  bench.forget();
  deleteNetwork(bench.runtime, listOf(), { ...attachment, args: [], netns: '' });
  assert.equal(steps(bench.calls), ['DEL gamma', 'DEL beta', 'DEL alpha']);
  assert.equal([bench.calls[0]?.args, bench.calls[0]?.netns], ['', '']);
  assert.equal((bench.calls[2]?.stdin['prevResult'] as { interfaces: object[] }).interfaces, [
    { name: 'gamma' },
  ]);
  assert.not(existsSync(bench.cacheFile));
});

test('DEL stops at the first failure and keeps the cached result for another try', () => {
  const bench = new Bench();
  addNetwork(bench.runtime, listOf(), attachment);
  bench.forget();
  bench.file('beta.DEL.fail', { code: 5, msg: 'disk' });
  assert.is(
    thrown(() => deleteNetwork(bench.runtime, listOf(), attachment)).message,
    'plugin type="beta" failed (delete): disk',
  );
  assert.equal(steps(bench.calls), ['DEL gamma', 'DEL beta']);
  assert.ok(existsSync(bench.cacheFile));
});

test('DEL works without a cached result, with a damaged one, and gives none to lists before 0.4.0', () => {
  const bench = new Bench();
  deleteNetwork(bench.runtime, listOf(), attachment);
  assert.is(bench.calls[0]?.stdin['prevResult'], undefined);
  mkdirSync(`${bench.folder}/cache/results`, { recursive: true });
  writeFileSync(bench.cacheFile, 'damaged');
  deleteNetwork(bench.runtime, listOf(), attachment);
  assert.match(bench.warnings.join(), 'deleting without it');
  assert.not(existsSync(bench.cacheFile));
  addNetwork(bench.runtime, listOf('0.3.1'), attachment);
  bench.forget();
  deleteNetwork(bench.runtime, listOf('0.3.1'), attachment);
  assert.is(bench.calls[0]?.stdin['prevResult'], undefined);
});

test('GC deletes stale attachments first, then asks every plugin with both spellings of the key', () => {
  const bench = new Bench();
  const list = listOf('1.1.0');
  addNetwork(bench.runtime, list, attachment);
  addNetwork(bench.runtime, list, {
    ...attachment,
    containerId: 'c2',
    capabilityArgs: { portMappings: [{ HostPort: 1 }] },
  });
  bench.forget();
  const valid = [{ containerID: 'c1', ifname: 'eth0' }];
  collectGarbage(bench.runtime, list, valid);
  assert.equal(steps(bench.calls), ['DEL gamma', 'DEL beta', 'DEL alpha', 'GC alpha', 'GC beta', 'GC gamma']);
  assert.equal([bench.calls[0]?.id, bench.calls[3]?.id, bench.calls[3]?.ifname], ['c2', '', '']);
  assert.equal(bench.calls[1]?.stdin['runtimeConfig'], { portMappings: [{ HostPort: 1 }] });
  assert.equal(bench.calls[3]?.stdin['cni.dev/valid-attachments'], valid);
  assert.equal(bench.calls[3]?.stdin['cni.dev/attachments'], valid);
});

test('GC continues after failures, calls no plugin before 1.1.0, and disableGC turns it off', () => {
  const bench = new Bench();
  addNetwork(bench.runtime, listOf('1.1.0'), attachment);
  bench.forget();
  bench.file('gamma.DEL.fail', { code: 5, msg: 'first' });
  bench.file('alpha.GC.fail', { code: 5, msg: 'second' });
  assert.match(thrown(() => collectGarbage(bench.runtime, listOf('1.1.0'), [])).message, 'first');
  assert.match(bench.warnings.join(), 'second');
  assert.equal(steps(bench.calls), ['DEL gamma', 'GC alpha', 'GC beta', 'GC gamma']);
  bench.forget();
  collectGarbage(bench.runtime, listOf('1.1.0', { disableGC: true }), []);
  assert.equal(readFileSync(`${bench.folder}/log`, 'utf8'), '');
  collectGarbage(bench.runtime, listOf('1.0.0'), [{ containerID: 'c1', ifname: 'eth0' }]);
  assert.equal(readFileSync(`${bench.folder}/log`, 'utf8'), '');
});

test('STATUS asks each plugin and keeps the code of the first that is not ready; older lists have none', () => {
  const bench = new Bench();
  assert.is(networkStatus(bench.runtime, listOf('1.1.0')), true);
  assert.equal(steps(bench.calls), ['STATUS alpha', 'STATUS beta', 'STATUS gamma']);
  bench.file('beta.STATUS.fail', { code: 50, msg: 'not ready' });
  assert.is(thrown(() => networkStatus(bench.runtime, listOf('1.1.0'))).code, 50);
  bench.forget();
  assert.is(networkStatus(bench.runtime, listOf('1.0.0')), false);
});

test('names are judged before any plugin runs', () => {
  const bench = new Bench();
  const wrong: [over: Partial<Attachment>, code: number][] = [
    [{ containerId: '' }, 3],
    [{ containerId: '../x' }, 4],
    [{ ifname: '' }, 4],
    [{ ifname: 'a/b' }, 4],
    [{ ifname: 'sixteen-letters-' }, 4],
    [{ args: [['A', 'x;y']] }, 4],
  ];
  for (const [over, code] of wrong) {
    assert.is(
      thrown(() => addNetwork(bench.runtime, listOf(), { ...attachment, ...over })).code,
      code,
      JSON.stringify(over),
    );
  }
  assert.equal(bench.calls, []);
});

test('what a plugin says on stderr reaches the runtime when the plugin succeeds', () => {
  const bench = new Bench();
  bench.file('alpha.stderr', 'a remark\n');
  addNetwork(bench.runtime, listOf(), attachment);
  assert.equal(bench.warnings, ['a remark']);
});

test.run();
