import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import dnsPacket, { type Answer, type Packet } from 'dns-packet';
import * as assert from 'uvu/assert';
import { framed, readFrames, serveDns } from '../../../../examples/countdash/dns.ts';
import { suite } from '../../../support/suite.ts';

/** The server on the test host's loopback, asked over real sockets; recursors are servers of the same kind or plain sockets. */
const test = suite('Consul DNS simulation');

const HOST = '127.0.0.1';
const zone = { 'count-api.virtual.consul': '240.0.0.1' };
let nextPort = 5300;
const ends: (() => void)[] = [];

test.after(() => ends.forEach((end) => end()));

async function server(recursors: readonly string[] = []): Promise<{ port: number; said: string[] }> {
  const port = (nextPort += 1);
  const said: string[] = [];
  ends.push(await serveDns({ address: HOST, port, zone, recursors }, (line) => said.push(line)));
  return { port, said };
}

type Transport = 'udp' | 'tcp';

async function ask(transport: Transport, port: number, name: string, type = 'A'): Promise<Packet> {
  const query = dnsPacket.encode({
    type: 'query',
    id: 4711,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ type, name }],
  });
  return dnsPacket.decode(await exchange(transport, port, query));
}

function exchange(transport: Transport, port: number, query: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    if (transport === 'tcp') {
      const socket = connect(port, HOST).on('error', reject);
      readFrames(socket, (message) => {
        socket.destroy();
        resolve(message);
      });
      // Cut in two, because TCP keeps no borders between messages.
      socket.write(framed(query).subarray(0, 5));
      setTimeout(() => socket.write(framed(query).subarray(5)), 20);
      return;
    }
    const socket = createSocket('udp4').on('error', reject);
    socket.once('message', (message) => {
      socket.close();
      resolve(message);
    });
    socket.send(query, port, HOST);
  });
}

/** A recursor that answers every name with one address, or never. */
function recursor(address: string | undefined): Promise<{ at: string; asked: string[] }> {
  const port = (nextPort += 1);
  const asked: string[] = [];
  const socket = createSocket('udp4');
  ends.push(() => socket.close());
  socket.on('message', (message, from) => {
    const { id, questions = [] } = dnsPacket.decode(message);
    asked.push(questions[0]?.name ?? '');
    if (address === undefined) return;
    const answers: Answer[] = [{ type: 'A', name: questions[0]?.name ?? '', ttl: 5, data: address }];
    socket.send(
      dnsPacket.encode({ type: 'response', ...(id === undefined ? {} : { id }), questions, answers }),
      from.port,
      from.address,
    );
  });
  return new Promise((done) => socket.bind(port, HOST, () => done({ at: `${HOST}#${port}`, asked })));
}

const data = (packet: Packet): unknown[] => (packet.answers ?? []).map((answer) => answer.data);

for (const transport of ['udp', 'tcp'] as const) {
  test(`a service's virtual name has its virtual address, over ${transport}`, async () => {
    const { port } = await server();
    const packet = await ask(transport, port, 'Count-API.virtual.consul');
    assert.equal([packet.id, packet.rcode, data(packet)], [4711, 'NOERROR', ['240.0.0.1']]);
    assert.is(packet.flag_rd, true);
  });

  test(`another name of the domain does not exist, over ${transport}`, async () => {
    const { port } = await server(['127.0.0.1#1']);
    const packet = await ask(transport, port, 'nobody.virtual.consul');
    assert.equal([packet.rcode, data(packet), packet.authorities?.[0]?.type], ['NXDOMAIN', [], 'SOA']);
  });

  test(`other domains are refused without a recursor, over ${transport}`, async () => {
    const { port, said } = await server();
    assert.is((await ask(transport, port, 'example.org')).rcode, 'SERVFAIL');
    assert.match(said.join(), 'SERVFAIL');
  });
}

test('a name that exists has no IPv6 address, which is not the same as not existing', async () => {
  const { port } = await server();
  const packet = await ask('udp', port, 'count-api.virtual.consul', 'AAAA');
  assert.equal([packet.rcode, data(packet), packet.authorities?.[0]?.type], ['NOERROR', [], 'SOA']);
});

test('other domains are asked of the recursor, and the answer carries the id of the question', async () => {
  const { at, asked } = await recursor('192.0.2.80');
  const { port } = await server([at]);
  const packet = await ask('udp', port, 'example.org');
  assert.equal([packet.id, data(packet)], [4711, ['192.0.2.80']]);
  assert.equal(asked, ['example.org']);
});

test('the next recursor is asked when one is closed or silent', async () => {
  const silent = await recursor(undefined);
  const speaking = await recursor('192.0.2.81');
  const { port } = await server([`${HOST}#1`, silent.at, speaking.at]);
  assert.equal(data(await ask('udp', port, 'example.org')), ['192.0.2.81']);
  assert.is(silent.asked.length, 1);
});

test('a question over tcp goes to the recursor over tcp', async () => {
  const behind = await server();
  const { port } = await server([`${HOST}#${behind.port}`]);
  // The server behind has no recursor either: its SERVFAIL is passed on, so it was asked.
  assert.is((await ask('tcp', port, 'example.org')).rcode, 'SERVFAIL');
  assert.is(behind.said.length, 1);
});

test('what is no question of ours is answered as the standard says, or not at all', async () => {
  const { port } = await server();
  const code = async (query: Buffer): Promise<string | undefined> =>
    dnsPacket.decode(await exchange('udp', port, query)).rcode;
  const two = [
    { type: 'A', name: 'a.consul' },
    { type: 'A', name: 'b.consul' },
  ];
  assert.is(await code(dnsPacket.encode({ type: 'query', id: 1, questions: two })), 'FORMERR');
  const status = dnsPacket.encode({ type: 'query', id: 1, flags: 2 << 11, questions: [] });
  assert.is(await code(status), 'NOTIMP');
  const cut = dnsPacket
    .encode({ type: 'query', id: 1, questions: [{ type: 'A', name: 'count-api.virtual.consul' }] })
    .subarray(0, 20);
  assert.is(await code(cut), 'FORMERR');
  // Neither garbage nor an answer gets an answer; the server lives on.
  const socket = createSocket('udp4');
  socket.send(Buffer.from('x'), port, HOST);
  socket.send(
    dnsPacket.encode({ type: 'response', id: 1, questions: [{ type: 'A', name: 'a.consul' }] }),
    port,
    HOST,
  );
  assert.equal(data(await ask('udp', port, 'count-api.virtual.consul')), ['240.0.0.1']);
  socket.close();
});

test.run();
