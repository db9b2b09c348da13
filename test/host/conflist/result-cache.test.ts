import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { parseNetworkList } from '../../../conflist/network-list.ts';
import {
  cachedAttachments,
  readCachedAttachment,
  readCachedResult,
  removeCachedResult,
  writeCachedResult,
} from '../../../conflist/result-cache.ts';
import { suite } from '../../support/suite.ts';
import { thrown } from '../../support/thrown.ts';

const test = suite('result cache');

const text = '{ "cniVersion": "0.4.0", "name": "nomad", "plugins": [ {"type":"alpha"} ] }\n';
const list = parseNetworkList(text, 'list');
const attachment = {
  containerId: '9a8e',
  netns: '/var/run/netns/x',
  ifname: 'eth0',
  args: [
    ['IgnoreUnknown', 'true'],
    ['NOMAD_JOB_ID', 'count<dash>'],
  ] as const,
  capabilityArgs: {
    dns: { servers: ['1.1.1.1'] },
    portMappings: [{ HostPort: 9002, ContainerPort: 9002, Protocol: 'tcp', HostIP: '' }],
  },
};
const result = {
  interfaces: [{ name: 'eth0', mac: '0a:00:00:00:00:01', sandbox: '/var/run/netns/x' }],
  ips: [{ interface: 0, address: '10.1.0.2/24', gateway: '10.1.0.1' }],
  routes: [{ dst: '0.0.0.0/0' }],
  dns: {},
};

/** What libcni 1.3.0 wrote for the same ADD; Go writes < and > as escapes, which reads the same. */
const OF_LIBCNI =
  '{"kind":"cniCacheV1","containerId":"9a8e","config":"BASE64","ifName":"eth0","networkName":"nomad","netns":"/var/run/netns/x",' +
  '"cniArgs":[["IgnoreUnknown","true"],["NOMAD_JOB_ID","count\\u003cdash\\u003e"]],"capabilityArgs":{"dns":{"servers":["1.1.1.1"]},' +
  '"portMappings":[{"HostPort":9002,"ContainerPort":9002,"Protocol":"tcp","HostIP":""}]},"result":{"cniVersion":"0.4.0","dns":{},' +
  '"interfaces":[{"mac":"0a:00:00:00:00:01","name":"eth0","sandbox":"/var/run/netns/x"}],"ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1",' +
  '"interface":0,"version":"4"}],"routes":[{"dst":"0.0.0.0/0"}]}}';
const ofLibcni = OF_LIBCNI.replace('BASE64', Buffer.from(text).toString('base64'));

let folders = 0;
const newFolder = (): string => `/var/lib/cni-${(folders += 1)}`;

test("writes libcni's file, in its place, with its modes", () => {
  const cacheDir = newFolder();
  writeCachedResult(cacheDir, list, attachment, result);
  const file = `${cacheDir}/results/nomad-9a8e-eth0`;
  assert.equal(readdirSync(`${cacheDir}/results`), ['nomad-9a8e-eth0']);
  assert.is(statSync(`${cacheDir}/results`).mode & 0o777, 0o700);
  assert.is(statSync(file).mode & 0o777, 0o600);
  assert.is(readFileSync(file, 'utf8'), ofLibcni.replaceAll('\\u003c', '<').replaceAll('\\u003e', '>'));
});

test("reads libcni's file", () => {
  const cacheDir = newFolder();
  mkdirSync(`${cacheDir}/results`, { recursive: true });
  writeFileSync(`${cacheDir}/results/nomad-9a8e-eth0`, ofLibcni);
  assert.equal(readCachedResult(cacheDir, 'nomad', attachment), result);
  assert.equal(readCachedAttachment(cacheDir, 'nomad', attachment), attachment);
  assert.equal(cachedAttachments(cacheDir, 'nomad'), [attachment]);
  assert.equal(cachedAttachments(cacheDir, 'other'), []);
});

test('what is not there is undefined, and removing it is fine', () => {
  const cacheDir = newFolder();
  assert.is(readCachedResult(cacheDir, 'nomad', attachment), undefined);
  assert.is(readCachedAttachment(cacheDir, 'nomad', attachment), undefined);
  assert.equal(cachedAttachments(cacheDir, 'nomad'), []);
  removeCachedResult(cacheDir, 'nomad', attachment);
});

test('empty parts are left out, as libcni leaves them out', () => {
  const cacheDir = newFolder();
  const bare = { containerId: 'c', netns: '', ifname: 'eth0', args: [], capabilityArgs: {} };
  writeCachedResult(cacheDir, list, bare, result);
  const written = JSON.parse(readFileSync(`${cacheDir}/results/nomad-c-eth0`, 'utf8')) as object;
  assert.equal(Object.keys(written), ['kind', 'containerId', 'config', 'ifName', 'networkName', 'result']);
  assert.equal(readCachedAttachment(cacheDir, 'nomad', bare), bare);
});

test('the older format, a bare result, is still read', () => {
  const cacheDir = newFolder();
  mkdirSync(`${cacheDir}/results`, { recursive: true });
  const bare = '{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.0.0.2/24"}],"dns":{}}';
  writeFileSync(`${cacheDir}/results/nomad-9a8e-eth0`, bare);
  assert.equal(readCachedResult(cacheDir, 'nomad', attachment)?.ips, [{ address: '10.0.0.2/24' }]);
  assert.equal(cachedAttachments(cacheDir, 'nomad'), []);
});

for (const damaged of [
  '',
  '{"kind":"cniCacheV1"',
  '{"kind":"cniCacheV1","result":{"cniVersion":"7"}}',
  '[1]',
  '{"kind":"cniCacheV1"}',
]) {
  test(`a damaged file is an error for CHECK: ${damaged}`, () => {
    const cacheDir = newFolder();
    mkdirSync(`${cacheDir}/results`, { recursive: true });
    writeFileSync(`${cacheDir}/results/nomad-9a8e-eth0`, damaged);
    const error = thrown(() => readCachedResult(cacheDir, 'nomad', attachment));
    assert.is(error.code, 6);
    assert.match(error.message, 'nomad-9a8e-eth0');
    assert.equal(cachedAttachments(cacheDir, 'nomad'), []);
  });
}

test.run();
