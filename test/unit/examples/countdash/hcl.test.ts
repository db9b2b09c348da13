/** The job and agent files of the example: valid HCL, and what the plugins depend on is in them. */
import { globSync, writeFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { hclAt, parseHcl } from '../../../support/hcl.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('countdash: HCL files');
const folder = resolve(import.meta.dirname, '../../../../examples/countdash');
const JOBS = ['countdash', 'raw-exec', 'upstreams', 'options'] as const;
const job = (name: string) => parseHcl(`${folder}/nomad/${name}.nomad.hcl`);
const group = (name: string, label: string, ...path: string[]) =>
  hclAt(job(name), 'job', 'countdash', 'group', label, ...path);
const PROXY = ['service', 'connect', 'sidecar_service', 'proxy'];

test('every file parses, and a syntax error is reported', () => {
  const files = globSync('{nomad,consul}/*.hcl', { cwd: folder });
  assert.ok(files.length >= 11, files.join());
  for (const file of files) assert.ok(Object.keys(parseHcl(join(folder, file))).length > 0, file);
  const scratch = mkdtempSync(join(tmpdir(), 'hcl-'));
  try {
    writeFileSync(`${scratch}/bad.hcl`, 'job "x" {\n  group {\n');
    assert.throws(() => parseHcl(`${scratch}/bad.hcl`));
  } finally {
    rmSync(scratch, { recursive: true });
  }
});

test('every job: both groups in bridge mode, the page on static port 9002, the dashboard calls count-api through the mesh', () => {
  for (const name of JOBS) {
    for (const label of ['api', 'dashboard'])
      assert.is(group(name, label, 'network', 'mode'), 'bridge', `${name} ${label}`);
    assert.equal(group(name, 'dashboard', 'network', 'port', 'http'), { static: 9002, to: 9002 }, name);
    assert.equal(
      [group(name, 'api', 'service', 'port'), group(name, 'dashboard', 'service', 'port')],
      ['9001', '9002'],
    );
    const url =
      name === 'upstreams' ? 'http://${NOMAD_UPSTREAM_ADDR_count_api}' : 'http://count-api.virtual.consul';
    assert.is(group(name, 'dashboard', 'task', 'dashboard', 'env', 'COUNTING_SERVICE_URL'), url);
  }
});

test('transparent proxy in all jobs but the one with a manual upstream', () => {
  for (const name of JOBS.filter((one) => one !== 'upstreams'))
    assert.ok(group(name, 'dashboard', ...PROXY, 'transparent_proxy') !== undefined, name);
  assert.equal(group('upstreams', 'dashboard', ...PROXY, 'upstreams'), {
    destination_name: 'count-api',
    local_bind_port: 8080,
  });
  const { uid, ...options } = group('options', 'api', ...PROXY, 'transparent_proxy') as Record<
    string,
    unknown
  >;
  assert.is(group('options', 'api', 'service', 'connect', 'sidecar_task', 'user'), uid);
  assert.equal(Object.keys(options).sort(), [
    'exclude_inbound_ports',
    'exclude_outbound_cidrs',
    'exclude_outbound_ports',
    'exclude_uids',
    'no_dns',
  ]);
});

test("Consul's agents: DNS on an address that allocations reach, recursors, and the intention", () => {
  for (const name of ['dev', 'server']) {
    const agent = parseHcl(`${folder}/consul/${name}.hcl`);
    assert.is(hclAt(agent, 'addresses', 'dns'), '{{ GetPrivateIP }}', name);
    assert.ok((hclAt(agent, 'recursors') as string[]).length > 0, name);
  }
  assert.is(hclAt(parseHcl(`${folder}/consul/tls.hcl`), 'ports', 'grpc_tls'), 8503);
  const sources = hclAt(parseHcl(`${folder}/consul/intention.hcl`), 'Sources');
  assert.equal(sources, [
    { Name: 'count-dashboard', Action: 'allow' },
    { Name: '*', Action: 'deny' },
  ]);
});

test.run();
