import { createSocket } from 'node:dgram';
import { createServer } from 'node:http';
import { spawn } from 'node:child_process';
import dnsPacket from 'dns-packet';
import { addAllocation, makeHost, runDoctor, sh, suiteOfFaults } from '../../../support/doctor.ts';
import * as assert from 'uvu/assert';
import { REQUEST } from '../../../support/tproxy.ts';

const NOMAD = new URL('../../../../conflist/nomad-tproxy.conflist', import.meta.url).pathname;

/** A Consul agent as far as Nomad and doctor ask it, in this process. */
const consul = {
  dnsPort: 8600,
  dnsAddresses: ['udp://127.0.0.1:8600', 'udp://192.0.2.2:8600', 'tcp://192.0.2.2:8600'],
  recursors: ['192.0.2.53'] as string[],
  knowsDomain: true,
  answers: true,
  status: 200,
};
const initial = structuredClone(consul);
const change = (to: Partial<typeof consul>) => () => void Object.assign(consul, to);
const undo = () => void Object.assign(consul, structuredClone(initial));
const dns = createSocket('udp4');
const http = createServer((_, response) => {
  const { dnsPort: DNSPort, dnsAddresses: DNSAddrs, recursors: DNSRecursors } = consul;
  response.statusCode = consul.status;
  response.end(
    JSON.stringify({ Config: {}, DebugConfig: { DNSPort, DNSAddrs, DNSRecursors, DNSDomain: 'consul.' } }),
  );
});

dns.on('message', (query, from) => {
  if (!consul.answers) return;
  const { id = 0, questions = [] } = dnsPacket.decode(query);
  const [question] = questions;
  const { name, type } = question ?? { name: '', type: '' };
  const isOwn = /(^|\.)consul$/.test(name);
  const isKnown = isOwn ? consul.knowsDomain : consul.recursors.length > 0;
  const data =
    type === 'SOA'
      ? {
          mname: 'ns.consul',
          rname: 'hostmaster.consul',
          serial: 1,
          refresh: 1,
          retry: 1,
          expire: 1,
          minimum: 0,
        }
      : '192.0.2.80';
  const reply = dnsPacket.encode({
    type: 'response',
    id,
    flags: isKnown ? 0 : isOwn ? 3 : 2,
    questions,
    answers: isKnown ? [{ type, name, data }] : [],
  });
  dns.send(reply, from.port, from.address);
});

const test = suiteOfFaults('weft doctor: mesh', {
  before: async () => {
    makeHost();
    sh('iptables -N NOMAD-ADMIN; iptables -A NOMAD-ADMIN -o nomad -d 172.26.64.0/20 -j ACCEPT');
    addAllocation('one', NOMAD, '--cni-args', `CONSUL_IPTABLES_CONFIG=${JSON.stringify(REQUEST)}`);
    await new Promise<void>((resolve) => dns.bind(8600, '192.0.2.2', resolve));
    await new Promise<void>((resolve) => http.listen(8500, '127.0.0.1', resolve));
  },
  after: () => {
    dns.close();
    http.close();
    http.closeAllConnections();
  },
  rounds: [
    [
      {
        fault: 'a firewall of the host drops DNS from the bridge',
        make: 'iptables -P INPUT DROP; iptables -A INPUT -i up0 -j ACCEPT; iptables -A INPUT -i lo -j ACCEPT',
        id: 'consul-dns-unreachable',
        where: 'bridge nomad',
      },
      {
        fault: 'Consul without recursors',
        make: change({ recursors: [] }),
        id: 'consul-dns-recursion',
        where: '192.0.2.2:8600',
        what: /does not resolve hashicorp\.com: SERVFAIL/,
        remedy: undo,
        printed: /^set recursors = /,
      },
      {
        fault: "a task runs as the proxy's user",
        make: () => {
          const child = spawn(
            'ip',
            ['netns', 'exec', 'one', 'setpriv', '--reuid', '101', '--clear-groups', 'sleep', '60'],
            { stdio: 'ignore' },
          );
          sh(
            `for i in $(seq 100); do ps -o uid= -p ${child.pid} | grep -q 101 && exit 0; sleep 0.05; done; exit 1`,
          );
          victim = child.pid ?? 0;
        },
        id: 'envoy-uid',
        where: 'allocation one',
        what: /sleep \(pid \d+\) runs as user 101/,
        remedy: () => void process.kill(victim),
        printed: /transparent_proxy/,
      },
    ],
    [
      {
        fault: 'another DNS server has the address',
        make: change({ knowsDomain: false }),
        id: 'consul-dns-domain',
        where: '192.0.2.2:8600',
        what: /NXDOMAIN for consul\./,
        remedy: undo,
        printed: /^find out what listens there: ss -lunp/,
      },
    ],
    [
      {
        fault: 'the DNS server hangs',
        make: change({ answers: false }),
        id: 'consul-dns-silent',
        where: '192.0.2.2:8600',
        remedy: undo,
      },
    ],
    [
      {
        fault: 'DNS on the loopback interface only',
        make: change({ dnsAddresses: ['udp://127.0.0.1:8600', 'udp://[::1]:8600'] }),
        id: 'consul-dns-loopback',
        where: 'Consul agent at 127.0.0.1:8500',
        what: /127\.0\.0\.1, ::1/,
        remedy: undo,
        printed: /^set addresses \{ dns = /,
      },
    ],
    [
      {
        fault: 'DNS disabled',
        make: change({ dnsPort: -1 }),
        id: 'consul-dns-off',
        where: 'Consul agent at 127.0.0.1:8500',
        remedy: undo,
        printed: /ports \{ dns = 8600 \}/,
      },
    ],
  ],
});

let victim = 0;

test('an unspecified address stands for the address of the uplink; --dns and --consul replace what is found', async () => {
  consul.dnsAddresses = ['udp://0.0.0.0:8600'];
  assert.equal((await runDoctor('--json')).report.notChecked, []);
  undo();
  const named = await runDoctor('--json', '--consul', 'http://127.0.0.1:1', '--dns', '192.0.2.2:8600');
  assert.equal([named.status, named.report.notChecked], [0, []]);
});

test('what cannot be asked says why', async () => {
  const reasons = async (...options: string[]) =>
    new Set((await runDoctor('--json', ...options)).report.notChecked.map(({ reason }) => reason));
  assert.equal(
    await reasons('--consul', '127.0.0.1:1'),
    new Set(['no Consul agent answers at http://127.0.0.1:1 (ECONNREFUSED)']),
  );
  consul.status = 403;
  assert.equal(
    await reasons(),
    new Set(['http://127.0.0.1:8500 wants a token with agent:read; set CONSUL_HTTP_TOKEN']),
  );
  undo();
  assert.equal(await reasons('--dns', '192.0.2.53:53'), new Set(['192.0.2.53 is no address of this host']));
});

test('the query from the bridge leaves nothing behind', async () => {
  const state = () =>
    sh(
      'ip -o link | sed "s/^[0-9]*: //; s/@.*//" | sort; ip route; ls /run/cni/nomad; iptables-save | grep -v "^#" | sed "s/\\[.*//"',
    );
  const before = state();
  assert.is((await runDoctor('--json')).status, 0);
  assert.is(state(), before);
});

test.run();
