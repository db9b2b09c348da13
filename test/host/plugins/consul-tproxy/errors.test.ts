/** What upstream refuses, vector by vector, and what else is wrong with a request: one error, all problems, nothing touched. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { errorOf } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import {
  BACKENDS,
  call,
  fails,
  leftovers,
  makeLegacyFolder,
  newNamespace,
  nomadArgs,
  REQUEST,
  sh,
  succeeds,
} from '../../../support/tproxy.ts';

interface ErrorVector {
  readonly name: string;
  readonly config?: Record<string, unknown>;
  readonly raw?: string;
  readonly cni_args?: string;
  readonly dualStack?: boolean;
}

const test = suite('consul-tproxy: errors', { limit: 40 });
const vectors = JSON.parse(
  readFileSync(resolve(import.meta.dirname, '../../../vectors/tproxy-error-vectors.json'), 'utf8'),
) as ErrorVector[];

/**
 * What our error says for each, upstream's own phrase wherever it has one that people search for; null where we accept what upstream
 * refuses (docs/reference/plugins/consul-tproxy.md, "Request").
 */
const PHRASES: Readonly<Record<string, RegExp | null>> = {
  'missing-proxy-uid': /ProxyUserID is required to set up traffic redirection/,
  'missing-proxy-inbound-port':
    /ProxyInboundPort is required to set up traffic redirection.*remove `port` from the sidecar_service block/,
  'both-missing-uid-reported-first': /ProxyUserID is required.*ProxyInboundPort is required/,
  'dns-ip-unparseable':
    /unable to parse consulDNSIP.*"not-an-ip".*ProxyUserID is required.*ProxyInboundPort is required/,
  'dns-ipv6-single-stack (always the case on Nomad)': null,
  'dns-ipv4-dual-stack': null,
  'json-invalid': /could not unmarshal CNI args: CONSUL_IPTABLES_CONFIG: /,
  'json-uid-as-number': /could not unmarshal CNI args: .*"ProxyUserID" must be a string, got 101/,
  'json-port-as-string':
    /could not unmarshal CNI args: .*"ProxyInboundPort" must be a whole number, got "20000"/,
  'json-provider-not-null': /could not unmarshal CNI args: .*"IptablesProvider"/,
  'json-array': /could not unmarshal CNI args: .*must be an object, got \[\]/,
  'no-args-at-all': /not running in a pod, namespace and pod should have values/,
  // The value with `=` passes; the empty request behind it does not.
  'cni-args-value-with-equals': /^invalid CONSUL_IPTABLES_CONFIG in CNI_ARGS: ProxyUserID is required/,
  'cni-args-unknown-without-ignoreunknown': /ARGS: unknown args \["FOO=1"\]/,
  'prevresult-without-ips': /got no container IPs/,
};

test.before(makeLegacyFolder);

test('there are fifteen', () => {
  assert.equal(
    vectors.map(({ name }) => name),
    Object.keys(PHRASES),
  );
});

for (const on of BACKENDS) {
  for (const vector of vectors) {
    test(`${on.name}: ${vector.name}`, () => {
      const netns = newNamespace();
      const phrase = PHRASES[vector.name];
      const request =
        vector.cni_args ?? (vector.raw === undefined ? (vector.config ?? REQUEST) : args(vector.raw));
      const config = {
        ipv6: vector.dualStack === true ? 'redirect' : 'reject',
        ...(vector.name === 'prevresult-without-ips' ? { prevResult: { cniVersion: '0.4.0' } } : {}),
      };
      const outcome = call('ADD', { netns, on, request, config });
      if (phrase === null) {
        assert.is(outcome.exitCode, 0, outcome.stdout);
        assert.match(leftovers(netns), /CONSUL_PROXY_OUTPUT/);
      } else {
        assert.match(errorOf(outcome).msg, phrase ?? /^$/);
        assert.is(leftovers(netns), '');
      }
    });
  }
}

test('one error names every problem, up to a screenful, and nothing is changed', () => {
  const netns = newNamespace();
  const { code, msg } = fails('ADD', {
    netns,
    request: {
      ConsulDNSIP: '0.0.0.0',
      ConsulDNSPort: 70000,
      ProxyUserID: 'no-such-user',
      ProxyInboundPort: 65536,
      ProxyOutboundPort: -5,
      ExcludeInboundPorts: ['99999', 'no-such-service', ''],
      ExcludeOutboundPorts: ['20-10'],
      ExcludeOutboundCIDRs: ['10.0.0.0/33', 'consul.example', 'fe80::1%eth0'],
      ExcludeUIDs: ['4294967295', '9-3'],
    },
  });
  assert.is(code, 4);
  const wanted = [
    'not the unspecified address',
    'ConsulDNSPort must be a port from 0 to 65535, got 70000',
    `ProxyUserID: "no-such-user" is neither`,
    'ProxyInboundPort must be a port from 1 to 65535, got 65536',
    'ProxyOutboundPort must be a port from 1 to 65535, got -5',
    'at most 65535, got "99999"',
    '"no-such-service" is neither',
    'ExcludeInboundPorts: "" is neither',
    'lower to the higher port, got "20-10"',
    'got "10.0.0.0/33"',
    'got "consul.example"',
    'got "fe80::1%eth0"',
    '; and 2 more',
  ];
  for (const text of wanted) assert.ok(msg.includes(text), `${text} is not in: ${msg}`);
  assert.is(leftovers(netns), '');
});

test('an option that does not exist is refused by name, together with the others', () => {
  const netns = newNamespace();
  const { code, msg } = fails('ADD', {
    netns,
    config: { exemptions: 'some', ipv6: 'drop', check: 'sometimes' },
  });
  assert.is(code, 7);
  for (const text of ['"exemptions" must be one of "full", "consul"', '"ipv6"', '"check"'])
    assert.ok(msg.includes(text), msg);
});

test('Kubernetes mode is refused with a reason', () => {
  const netns = newNamespace();
  const { msg } = fails('ADD', {
    netns,
    request: 'IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_NAMESPACE=default',
  });
  assert.match(msg, /Kubernetes is not supported/);
  // With Nomad's key it is Nomad, whatever else is there.
  succeeds('ADD', { netns, request: `${nomadArgs(REQUEST)};K8S_POD_NAME=web;K8S_POD_NAMESPACE=default` });
});

test('a namespace that is none is refused with code 8', () => {
  assert.is(fails('ADD', { netns: 'never-made' }).code, 8);
  assert.is(fails('CHECK', { netns: 'never-made' }).code, 8);
});

test('both spellings of the argument are read, the newer first', () => {
  const netns = newNamespace();
  const json = (port: number): string => JSON.stringify({ ProxyUserID: '101', ProxyInboundPort: port });
  succeeds('ADD', { netns, request: `IgnoreUnknown=1;CONSUL_NFTABLES_CONFIG=${json(21000)}` });
  const warnings = succeeds('ADD', {
    netns,
    request: `IgnoreUnknown=1;CONSUL_IPTABLES_CONFIG=${json(20000)};CONSUL_NFTABLES_CONFIG=${json(22000)}`,
  });
  assert.match(
    warnings.join(),
    /CONSUL_NFTABLES_CONFIG and CONSUL_IPTABLES_CONFIG differ; using CONSUL_NFTABLES_CONFIG/,
  );
  assert.match(sh(`ip netns exec ${netns} iptables-save -t nat`), /--to-ports 22000/);
});

test('an empty argument counts as none', () => {
  assert.match(
    fails('ADD', { netns: newNamespace(), request: 'IgnoreUnknown=1;CONSUL_IPTABLES_CONFIG=' }).msg,
    /CNI_ARGS has no CONSUL_IPTABLES_CONFIG/,
  );
});

test.run();

function args(raw: string): string {
  return `IgnoreUnknown=true;CONSUL_IPTABLES_CONFIG=${raw}`;
}
