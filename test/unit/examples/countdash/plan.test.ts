import * as assert from 'uvu/assert';
import { type Footprint, compareFootprints } from '../../../../examples/countdash/footprint.ts';
import { isMountPoint } from '../../../../examples/countdash/tool.ts';
import { parseOptions, type Options } from '../../../../examples/countdash/options.ts';
import { drawPicture } from '../../../../examples/countdash/picture.ts';
import { makePlan } from '../../../../examples/countdash/plan.ts';
import { isAlive, startOf } from '../../../../examples/countdash/state.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('plan of the example');

const host = { address: '192.0.2.2', routes: ['default', '192.0.2.0/24'], recursors: ['192.0.2.53'] };
const addresses = {
  api: '172.27.90.2',
  dashboard: '172.27.90.3',
  apiIpv6: undefined,
  dashboardIpv6: undefined,
};
const anyFree = (): boolean => true;

function options(...argv: string[]): Options {
  const parsed = parseOptions(argv);
  if (parsed === undefined) throw new Error('help');
  return parsed;
}

test('two groups: api without static ports, dashboard with 9002, each with its sidecar port', () => {
  const plan = makePlan(options(), host, anyFree);
  assert.equal(plan.api.ports, [
    { label: 'connect-proxy-count-api', host: plan.api.proxyPort, to: plan.api.proxyPort, reserved: false },
  ]);
  assert.equal(plan.dashboard.ports[0], { label: 'http', host: 9002, to: 9002, reserved: true });
  assert.is(plan.countingUrl, 'http://count-api.virtual.consul');
  assert.equal(plan.dns, { address: '172.27.90.1', port: 8600 });
  assert.match(plan.api.allocId, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.is.not(plan.api.allocId, plan.dashboard.allocId);
});

test("sidecar ports are of Nomad's dynamic range, free, and two", () => {
  const free = new Set([20_000, 31_999]);
  const { api, dashboard } = makePlan(options(), host, (port) => free.has(port));
  assert.equal([api.proxyPort, dashboard.proxyPort].sort(), [20_000, 31_999]);
  assert.throws(() => makePlan(options(), host, () => false), /every port/);
  const other = makePlan(options('--port', '20000'), host, (port) => [20_000, 20_001, 20_002].includes(port));
  assert.equal([other.api.proxyPort, other.dashboard.proxyPort].sort(), [20_001, 20_002]);
});

test('--port moves the port of the host, not the one inside', () => {
  const { dashboard } = makePlan(options('--port', '9010'), host, anyFree);
  assert.equal([dashboard.ports[0]?.host, dashboard.ports[0]?.to], [9010, 9002]);
});

test('--upstreams needs no DNS and asks the loopback', () => {
  const plan = makePlan(options('--upstreams'), host, anyFree);
  assert.equal([plan.dns, plan.countingUrl], [undefined, 'http://127.0.0.1:8080']);
});

test("a host without an address of its own is reached by the bridge's", () => {
  assert.is(makePlan(options(), { ...host, address: undefined }, anyFree).hostAddress, '172.27.90.1');
});

test('the picture names every address, port and redirect of the way', () => {
  const plan = makePlan(options(), host, anyFree);
  const picture = drawPicture(plan, addresses).join('\n');
  const parts = [
    '192.0.2.2',
    ':9002 -> 172.27.90.3:9002',
    'weft-demo0 172.27.90.1',
    '172.27.90.1:8600',
    '127.0.0.1:15001',
    '240.0.0.1',
  ];
  for (const part of [...parts, `192.0.2.2:${plan.api.proxyPort}`, 'count-dashboard -> count-api: allow']) {
    assert.ok(picture.includes(part), `${part} in\n${picture}`);
  }
  const denied = drawPicture(makePlan(options('--deny', '--upstreams'), host, anyFree), addresses).join('\n');
  assert.match(denied, 'count-api: deny');
  assert.not.match(denied, '15001');
});

test('options: what is none is refused, help is no run', () => {
  assert.is(parseOptions(['--help']), undefined);
  for (const argv of [
    ['--port', 'x'],
    ['--port', '70000'],
    ['--port', '8600'],
    ['--nonsense'],
    ['surplus'],
  ]) {
    assert.throws(() => parseOptions(argv));
  }
});

test('a mount point is one that can be seen: not beneath a later mount of a folder above it', () => {
  const mounts = (...lines: string[]): string =>
    lines.map((line) => `${line} rw - ext4 /dev/vda rw\n`).join('');
  const root = '20 1 254:0 / /';
  assert.is(isMountPoint('/run/netns', mounts(root, '30 20 254:0 /run/netns /run/netns')), true);
  assert.is(
    isMountPoint('/run/netns', mounts(root, '25 20 0:5 / /run', '30 25 0:5 /netns /run/netns')),
    true,
  );
  const hidden = mounts(root, '30 20 254:0 /run/netns /run/netns', '31 20 0:9 / /run');
  assert.is(isMountPoint('/run/netns', hidden), false);
  assert.is(isMountPoint('/run/netns', mounts(root, '25 20 0:5 / /run', '26 25 0:6 / /run/netnsx')), false);
  assert.is(isMountPoint('/run/netns', ''), false);
});

test('footprints: what came and what went, under its heading', () => {
  const none: Footprint = {
    interfaces: [],
    routes: [],
    namespaces: [],
    rules: [],
    tables: [],
    mounts: [],
    files: [],
    processes: [],
    settings: [],
  };
  const before = { ...none, interfaces: ['lo', 'eth0'], rules: ['a'] };
  const after = { ...none, interfaces: ['lo'], rules: ['a', 'b'] };
  assert.equal(compareFootprints(before, after), { added: ['rules: b'], removed: ['interfaces: eth0'] });
  assert.equal(compareFootprints(before, before), { added: [], removed: [] });
});

test('a run is identified by pid and start time: the pid may be reused', () => {
  assert.ok(isAlive({ pid: process.pid, started: startOf(process.pid) }));
  assert.not(isAlive({ pid: process.pid, started: '1' }));
  assert.not(isAlive({ pid: 4_194_304, started: '1' }));
});

test.run();
