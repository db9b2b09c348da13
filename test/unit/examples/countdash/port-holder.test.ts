import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import * as assert from 'uvu/assert';
import { portHolders, portRedirections } from '../../../../examples/countdash/host.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('who holds a port');

test('a free port has no holder', () => {
  assert.equal(portHolders(9002), []);
});

for (const host of ['127.0.0.1', '0.0.0.0', '::1', '::']) {
  test(`a tcp listener on ${host} is found with its process`, async () => {
    const server = createServer();
    await new Promise<void>((done) => server.listen(9002, host, done));
    assert.equal(portHolders(9002).length, 1);
    assert.match(
      portHolders(9002)[0] ?? '',
      new RegExp(`^tcp port 9002 is held by process ${process.pid} \\(`),
    );
    await new Promise((done) => server.close(done));
  });
}

test('a udp socket is found', async () => {
  const socket = createSocket('udp4');
  await new Promise<void>((done) => socket.bind(9002, done));
  assert.match(portHolders(9002).join(), `udp port 9002 is held by process ${process.pid}`);
  await new Promise<void>((done) => socket.close(done));
});

test('a connection from that port to elsewhere is no holder', async () => {
  const server = createServer();
  await new Promise<void>((done) => server.listen(7000, '127.0.0.1', done));
  const { connect } = await import('node:net');
  const socket = connect({ port: 7000, host: '127.0.0.1', localPort: 9002 });
  await new Promise<void>((done) => socket.once('connect', done));
  assert.equal(portHolders(9002), []);
  socket.destroy();
  server.close();
});

test('port mappings of container engines are found in the rules', () => {
  const rules = [
    'iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 9002 -j DNAT --to-destination 172.17.0.2:80',
    'iptables -t nat -A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 80,9002 -j CNI-DN-0123',
    'nft table ip t | chain c | tcp dport 9002 dnat to 10.0.0.2:80',
    'iptables -t filter -A INPUT -p tcp --dport 9002 -j ACCEPT',
    'iptables -t nat -A DOCKER -p tcp --dport 90021 -j DNAT --to-destination 172.17.0.2:9002',
  ];
  assert.equal(portRedirections(rules, 9002), rules.slice(0, 3));
});

test.run();
