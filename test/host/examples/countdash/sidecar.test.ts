import { execFileSync, spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { connect as connectTls } from 'node:tls';
import * as assert from 'uvu/assert';
import { makeIdentities, serviceOf, type Identity } from '../../../../examples/countdash/certificates.ts';
import { listening } from '../../../../examples/countdash/programs.ts';
import { serveSidecar, type SidecarConfig, type Upstream } from '../../../../examples/countdash/sidecar.ts';
import { suite } from '../../../support/suite.ts';

/**
 * Two sidecars in this file's own host, with the kernel's real redirects between them. Clients run as user 65534, because the
 * sidecars, being in this process, must not be redirected: here root is the proxy's user.
 */
const test = suite('sidecar simulation');

const TRUST = '11111111-2222-3333-4444-555555555555.consul';
const PORTS = {
  api: 9001,
  apiProxy: 21001,
  clientProxy: 21002,
  outbound: 15001,
  upstream: 8080,
  elsewhere: 7000,
};
const said: string[] = [];
let api: Identity;
let client: Identity;

/**
 * The connection ends without an answer: 52 nothing came, 55 and 56 it broke off while sending and receiving, 7 the reset was there before curl
 * had looked whether it is connected.
 */
const REFUSED = /^curl (7|52|55|56)$/;

const sh = (script: string): string => execFileSync('sh', ['-ec', script], { encoding: 'utf8' });

const upstream = (service: string, port: number, virtualAddress = '240.0.0.1'): Upstream => ({
  service,
  virtualAddress,
  host: '127.0.0.1',
  port,
});

async function start(
  identity: Identity,
  over: Partial<SidecarConfig['inbound']> & { port: number },
  outbound: SidecarConfig['outbound'],
): Promise<void> {
  await serveSidecar(
    { identity, inbound: { appPort: PORTS.api, allowed: ['client'], ...over }, outbound },
    (line) => said.push(line),
  );
}

/** An HTTP GET as an ordinary user: stdout, or `curl` and its exit code. */
function curl(...args: string[]): Promise<string> {
  return new Promise((resolve) => {
    const child = spawn('curl', ['-sS', '-m', '6', '--noproxy', '*', ...args], { uid: 65534, gid: 65534 });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
    child.on('close', (code) => resolve(code === 0 ? text : `curl ${code}`));
  });
}

test.before(async () => {
  sh(`ip route add 240.0.0.0/4 dev lo; ip route add 198.51.100.0/24 dev lo; ip addr add 198.51.100.7/32 dev lo
    ip -6 addr add 2001:db8::7/128 dev lo nodad; ip -6 route add 2001:db8:240::/64 dev lo
    iptables -t nat -A OUTPUT -p tcp -m owner --uid-owner 65534 ! -d 127.0.0.0/8 -j REDIRECT --to-ports ${PORTS.outbound}
    ip6tables -t nat -A OUTPUT -p tcp -m owner --uid-owner 65534 ! -d ::1 -j REDIRECT --to-ports ${PORTS.outbound}`);
  const [one, two] = await makeIdentities(TRUST, ['api', 'client']);
  if (one === undefined || two === undefined) throw new Error('two identities');
  [api, client] = [one, two];
  const app = createServer((request, response) => response.end(`api says ${request.url}`));
  await listening(app, { port: PORTS.api, host: '127.0.0.1' });
  const elsewhere = createServer((_request, response) => response.end('not of the mesh'));
  await listening(elsewhere, { port: PORTS.elsewhere });
  await start(api, { port: PORTS.apiProxy }, { mode: 'upstreams', listeners: [] });
  await start(
    client,
    { port: PORTS.clientProxy },
    {
      mode: 'transparent',
      port: PORTS.outbound,
      upstreams: [
        upstream('api', PORTS.apiProxy),
        upstream('api', PORTS.clientProxy, '240.0.0.9'),
        upstream('api', PORTS.apiProxy, '2001:db8:240::1'),
      ],
    },
  );
});
test.after(() => void setImmediate(() => process.exit()));

test('a call of a virtual address arrives through both sidecars, whatever its port', async () => {
  assert.is(await curl('http://240.0.0.1/a'), 'api says /a');
  assert.is(await curl('http://240.0.0.1:8123/b'), 'api says /b');
});

test('and so over IPv6, where the destination is found in the other structure', async () => {
  assert.is(await curl('http://[2001:db8:240::1]/six'), 'api says /six');
});

test('a destination outside of the mesh is connected as it is', async () => {
  assert.is(await curl(`http://198.51.100.7:${PORTS.elsewhere}/`), 'not of the mesh');
  assert.is(await curl(`http://[2001:db8::7]:${PORTS.elsewhere}/`), 'not of the mesh');
});

test('many calls at once, and a large body, come through whole', async () => {
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, index) => curl(`http://240.0.0.1/${index}`)),
  );
  assert.equal(
    answers,
    answers.map((_, index) => `api says /${index}`),
  );
  const path = 'x'.repeat(7000);
  assert.is(await curl(`http://240.0.0.1/${path}`), `api says /${path}`);
});

test('an end in one direction is passed on while the other still speaks', async () => {
  const echo = createTcpServer({ allowHalfOpen: true }, (socket) => {
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => chunks.push(Buffer.from(chunk)));
    socket.on('end', () => socket.end(`heard ${Buffer.concat(chunks).length} bytes`));
  });
  await listening(echo, { port: 9005, host: '127.0.0.1' });
  await start(api, { port: 21005, appPort: 9005 }, { mode: 'upstreams', listeners: [] });
  await start(
    client,
    { port: 21006 },
    { mode: 'upstreams', listeners: [{ port: 8085, upstream: upstream('api', 21005) }] },
  );
  const { connect } = await import('node:net');
  const socket = connect({ port: 8085, host: '127.0.0.1', allowHalfOpen: true });
  socket.end(Buffer.alloc(300_000));
  const heard = await new Promise<string>((done) => socket.once('data', (chunk) => done(chunk.toString())));
  assert.is(heard, 'heard 300000 bytes');
  socket.destroy();
});

test('a call of the outbound listener itself is refused, not sent in a circle', async () => {
  assert.match(await curl(`http://127.0.0.1:${PORTS.outbound}/`), REFUSED);
});

test('a manual upstream is a port of the loopback', async () => {
  await start(
    client,
    { port: 21003 },
    { mode: 'upstreams', listeners: [{ port: PORTS.upstream, upstream: upstream('api', PORTS.apiProxy) }] },
  );
  assert.is(await curl(`http://127.0.0.1:${PORTS.upstream}/up`), 'api says /up');
});

test('an intention that does not name the caller refuses it after the handshake', async () => {
  await start(api, { port: 21004, allowed: ['other-service'] }, { mode: 'upstreams', listeners: [] });
  await start(
    client,
    { port: 21007 },
    { mode: 'upstreams', listeners: [{ port: 8086, upstream: upstream('api', 21004) }] },
  );
  assert.match(await curl('http://127.0.0.1:8086/'), REFUSED);
  assert.ok(said.includes('intention: client -> api denied'), said.join('\n'));
});

test('a sidecar of another service than the one called is not trusted', async () => {
  assert.match(await curl('http://240.0.0.9/'), REFUSED);
  assert.match(said.join('\n'), 'the peer is client, expected api');
});

test('a connection without a certificate, or with one of another authority, is refused', async () => {
  const outcome = (identity: Identity | undefined): Promise<string> =>
    new Promise((resolve) => {
      const socket = connectTls({
        port: PORTS.apiProxy,
        host: '127.0.0.1',
        rejectUnauthorized: false,
        ...(identity === undefined ? {} : { cert: identity.certificate, key: identity.key }),
      });
      // With TLS 1.3 the refusal comes after the client's side of the handshake is done.
      socket.on('secureConnect', () => socket.write('GET / HTTP/1.0\r\n\r\n'));
      socket.on('data', (chunk) => resolve(chunk.toString()));
      socket.on('error', (error: NodeJS.ErrnoException) => resolve(`refused ${error.code}`));
      socket.on('close', () => resolve('closed'));
    });
  assert.match(await outcome(undefined), /refused|closed/);
  const [stranger] = await makeIdentities(TRUST, ['client']);
  assert.match(await outcome(stranger), /refused|closed/);
  assert.match(await outcome(client), 'api says /');
});

test('certificates: a critical URI identity, its own key, signed by the authority', () => {
  const [one, two] = [new X509Certificate(api.certificate), new X509Certificate(client.certificate)];
  const authority = new X509Certificate(api.authority);
  assert.is(one.subjectAltName, `URI:spiffe://${TRUST}/ns/default/dc/dc1/svc/api`);
  assert.ok(one.verify(authority.publicKey) && two.verify(authority.publicKey));
  assert.is(authority.ca, true);
  assert.is(one.ca, false);
  assert.is.not(api.key, client.key);
});

test('identities: exactly one URI, of this trust domain', () => {
  const name = `URI:spiffe://${TRUST}/ns/default/dc/dc1/svc/api`;
  assert.is(serviceOf(TRUST, name), 'api');
  assert.is(serviceOf(TRUST, `DNS:x, ${name}`), 'api');
  for (const other of [
    undefined,
    '',
    `${name}, URI:x`,
    'DNS:api',
    name.replace('1111', '2222'),
    `${name}/x`,
    `URI:spiffe://${TRUST}/ns/default/dc/dc1/svc/`,
  ]) {
    assert.is(serviceOf(TRUST, other), undefined, other);
  }
});

test.run();
