/**
 * What the rules do to packets: contract 2.5's table of measured behaviour, probe by probe, on every backend, with both exemption sets and every
 * choice for IPv6, UDP and DNS. Where ours differs from consul-cni's, the row is marked IMPROVED. Who answers where: traffic-scene.ts.
 */
import { resolve } from 'node:path';
import { suite } from '../../../support/suite.ts';
import { BACKENDS, makeLegacyFolder, sh, succeeds, type TestedBackend } from '../../../support/tproxy.ts';
import {
  APP,
  buildScene,
  compare,
  CONSUL,
  endScene,
  REMOTE,
  REMOTE6,
  RESOLVER,
  USER,
  type Row,
} from './traffic-scene.ts';

const test = suite('consul-tproxy: traffic', { limit: 90 });

test.before(makeLegacyFolder);
test.before(buildScene);
test.after(endScene);

/** The same whatever the options are. */
const ALWAYS: readonly Row[] = [
  ['app', USER, 'tcp', REMOTE, 80, `envoy out < ${REMOTE}:80`],
  ['app', 101, 'tcp', REMOTE, 80, 'remote'],
  ['app', 200, 'tcp', REMOTE, 80, 'remote'],
  ['app', USER, 'tcp', REMOTE, 3306, 'remote db'],
  ['app', USER, 'tcp', '127.0.0.1', 9001, 'app'],
  ['app', USER, 'tcp', '::1', 9001, 'app'],
  ['app', USER, 'tcp', APP, 9001, `envoy out < ${APP}:9001`],
  ['app', 101, 'tcp', APP, 9001, 'app'],
  ['app', 101, 'tcp', 'fd00::2', 9001, 'app'],
  ['app', USER, 'udp', CONSUL, 53, 'consul dns udp'],
  ['app', USER, 'tcp', CONSUL, 53, 'consul dns tcp'],
  ['app', 101, 'udp', CONSUL, 53, 'consul dns udp'],
  ['app', 101, 'tcp', CONSUL, 53, 'consul dns tcp'],
  ['app', USER, 'udp', CONSUL, 8600, 'consul dns udp'],
  ['app', USER, 'tcp', CONSUL, 8600, `envoy out < ${CONSUL}:8600`],
  ['app', 101, 'tcp', REMOTE6, 80, 'remote6'],
  ['app', 200, 'tcp', REMOTE6, 80, 'remote6'],
  ['app', USER, 'tcp', REMOTE6, 3306, 'remote6 db'],
  ['peer', USER, 'tcp', APP, 9001, `envoy in < ${APP}:9001`],
  ['peer', USER, 'tcp', APP, 9002, 'app excluded'],
  ['peer', USER, 'tcp', APP, 9999, `envoy in < ${APP}:9999`],
  ['peer', USER, 'tcp', APP, 15001, `envoy in < ${APP}:15001`],
  ['peer', USER, 'udp', APP, 9001, 'app udp'],
  ['peer', USER, 'tcp', 'fd00::2', 9002, 'app excluded'],
];

const UPSTREAM: readonly Row[] = [
  ['app', USER, 'tcp', '127.0.0.2', 19001, 'envoy out < 127.0.0.2:19001'],
  ['app', USER, 'udp', RESOLVER, 53, 'resolver udp'],
  ['app', USER, 'tcp', RESOLVER, 53, `envoy out < ${RESOLVER}:53`],
  ['app', USER, 'udp', REMOTE, 443, 'remote udp'],
  ['app', USER, 'tcp', REMOTE6, 80, 'remote6'],
  ['app', USER, 'udp', REMOTE6, 443, 'remote6 udp'],
  ['peer', USER, 'tcp', 'fd00::2', 9001, 'app'],
];

const DEFAULT: readonly Row[] = [
  // IMPROVED: all of 127.0.0.0/8 is loopback; Envoy's admin address on Nomad is 127.0.0.2.
  ['app', USER, 'tcp', '127.0.0.2', 19001, 'envoy admin'],
  ['app', USER, 'udp', RESOLVER, 53, 'resolver udp'],
  // IMPROVED: a truncated answer can be asked for again over TCP.
  ['app', USER, 'tcp', RESOLVER, 53, 'resolver tcp'],
  ['app', USER, 'tcp', REMOTE6, 53, 'resolver6 tcp'],
  ['app', USER, 'udp', REMOTE6, 53, 'resolver6 udp'],
  ['app', USER, 'udp', REMOTE, 443, 'remote udp'],
  ['app', USER, 'udp', REMOTE6, 443, 'remote6 udp'],
  // Unlike with consul-cni, IPv6 does not bypass the proxy in either direction, nor do link-local addresses.
  ['app', USER, 'tcp', REMOTE6, 80, 'ECONNREFUSED'],
  ['app', USER, 'tcp', 'fd00::1', 80, 'ECONNREFUSED'],
  ['app', USER, 'tcp', 'fd00::2', 9001, 'ECONNREFUSED'],
  ['peer', USER, 'tcp', 'fd00::2', 9001, 'ECONNREFUSED'],
  ['peer', USER, 'tcp', 'fd00::2', 15001, 'ECONNREFUSED'],
  // A client that reaches the proxy itself has not gone around it.
  ['peer', USER, 'tcp', 'fd00::2', 9999, 'envoy in < [fd00::2]:9999'],
];

const REDIRECTED: readonly Row[] = [
  ['app', USER, 'tcp', REMOTE6, 80, `envoy out < [${REMOTE6}]:80`],
  ['app', USER, 'tcp', 'fd00::2', 9001, 'envoy out < [fd00::2]:9001'],
  ['peer', USER, 'tcp', 'fd00::2', 9001, 'envoy in < [fd00::2]:9001'],
  ['peer', USER, 'tcp', 'fd00::2', 9999, 'envoy in < [fd00::2]:9999'],
  ['app', USER, 'tcp', REMOTE6, 53, 'resolver6 tcp'],
];

const NO_UDP: readonly Row[] = [
  ['app', USER, 'udp', REMOTE, 443, 'ECONNREFUSED'],
  ['app', USER, 'udp', REMOTE6, 443, 'ECONNREFUSED'],
  ['app', 101, 'udp', REMOTE, 443, 'remote udp'],
  ['app', 200, 'udp', REMOTE6, 443, 'remote6 udp'],
  ['app', USER, 'udp', RESOLVER, 53, 'resolver udp'],
  ['app', USER, 'udp', APP, 9001, 'app udp'],
];

const ALL_DNS: readonly Row[] = [
  ['app', USER, 'udp', RESOLVER, 53, 'consul dns udp'],
  ['app', USER, 'tcp', RESOLVER, 53, 'consul dns tcp'],
  // A stub resolver in the allocation answers, and what it asks for in turn is captured.
  ['app', USER, 'udp', '127.0.0.53', 53, 'stub udp'],
  ['app', USER, 'tcp', '127.0.0.53', 53, 'stub tcp'],
  // Excluded by the job, and the proxy itself: they ask whom they like.
  ['app', 200, 'udp', RESOLVER, 53, 'resolver udp'],
  ['app', 101, 'tcp', RESOLVER, 53, 'resolver tcp'],
  // Of the other family, so it cannot be handed on: refused instead of leaked.
  ['app', USER, 'udp', REMOTE6, 53, 'ECONNREFUSED'],
  ['app', USER, 'tcp', REMOTE6, 53, 'ECONNREFUSED'],
  ['app', 200, 'udp', REMOTE6, 53, 'resolver6 udp'],
];

const DNS6 = { ConsulDNSIP: 'fd00::1' };
const DNS6_ROWS: readonly Row[] = [
  // IMPROVED: consul-cni refuses a Consul whose DNS has an IPv6 address.
  ['app', USER, 'udp', 'fd00::1', 53, 'consul dns6 udp'],
  ['app', USER, 'tcp', 'fd00::1', 53, 'consul dns6 tcp'],
  ['app', USER, 'udp', RESOLVER, 53, 'resolver udp'],
  ['app', USER, 'tcp', REMOTE6, 80, 'ECONNREFUSED'],
];

for (const on of BACKENDS) {
  table(on, 'exemptions "consul": upstream’s behaviour', { exemptions: 'consul', ipv6: 'bypass' }, [
    ...ALWAYS,
    ...UPSTREAM,
  ]);
  table(on, 'the defaults', {}, [...ALWAYS, ...DEFAULT]);
  table(on, 'ipv6 "redirect"', { ipv6: 'redirect' }, [...ALWAYS, ...REDIRECTED]);
  table(on, 'udp "reject"', { udp: 'reject' }, [...ALWAYS, ...NO_UDP]);
  table(on, 'dnsCapture "all"', { dnsCapture: 'all' }, [...ALWAYS, ...ALL_DNS]);
  table(on, 'dnsCapture "all" without UDP', { dnsCapture: 'all', udp: 'reject' }, ALL_DNS);
  table(on, 'Consul DNS on IPv6', {}, DNS6_ROWS, DNS6);
  table(
    on,
    'Consul DNS on IPv6, all of it',
    { dnsCapture: 'all', udp: 'reject' },
    [
      ['app', USER, 'udp', REMOTE6, 53, 'consul dns6 udp'],
      ['app', USER, 'tcp', REMOTE6, 53, 'consul dns6 tcp'],
      ['app', USER, 'udp', RESOLVER, 53, 'ECONNREFUSED'],
      ['app', USER, 'tcp', RESOLVER, 53, 'ECONNREFUSED'],
      ['app', USER, 'tcp', REMOTE, 80, `envoy out < ${REMOTE}:80`],
    ],
    DNS6,
  );

  table(
    on,
    'Consul DNS in the allocation itself, all of it',
    { dnsCapture: 'all' },
    [
      ['app', USER, 'udp', '127.0.0.1', 53, 'local dns udp'],
      ['app', USER, 'tcp', '127.0.0.53', 53, 'local dns tcp'],
      ['app', USER, 'udp', RESOLVER, 53, 'local dns udp'],
      ['app', USER, 'tcp', RESOLVER, 53, 'local dns tcp'],
    ],
    { ConsulDNSIP: '' },
  );

  test(`${on.name}: ICMP passes, whatever the rules`, () => {
    const program = resolve(import.meta.dirname, 'programs/ping.ts');
    for (const config of [
      {},
      { udp: 'reject', dnsCapture: 'all' },
      { exemptions: 'consul', ipv6: 'bypass' },
    ]) {
      succeeds('ADD', { netns: 'app', on, config, request: JOB });
      for (const address of [REMOTE, REMOTE6])
        sh(`ip netns exec app ${process.execPath} --no-warnings --experimental-ffi ${program} ${address}`);
    }
  });

  test(`${on.name}: after DEL everything goes where it went before`, () => {
    succeeds('ADD', { netns: 'app', on });
    succeeds('DEL', { netns: 'app', on });
    compare([
      ['app', USER, 'tcp', REMOTE, 80, 'remote'],
      ['app', USER, 'tcp', REMOTE6, 80, 'remote6'],
      ['peer', USER, 'tcp', APP, 9001, 'app'],
      ['peer', USER, 'tcp', 'fd00::2', 9001, 'app'],
    ]);
  });
}

test.run();

function table(
  on: TestedBackend,
  title: string,
  config: object,
  rows: readonly Row[],
  request: object = {},
): void {
  test(`${on.name}: ${title}`, () => {
    succeeds('ADD', { netns: 'app', on, config: { ...config }, request: { ...JOB, ...request } });
    compare(rows);
  });
}

const JOB = {
  ConsulDNSIP: CONSUL,
  ConsulDNSPort: 8600,
  ProxyUserID: '101',
  ProxyInboundPort: 9999,
  ProxyOutboundPort: 15001,
  ExcludeInboundPorts: ['9002'],
  ExcludeOutboundPorts: ['3306'],
  ExcludeUIDs: ['200'],
};
