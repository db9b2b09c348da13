import { spawn, type ChildProcess } from 'node:child_process';
import { readdirSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { checked, libc } from '../../../../../shared/kernel/libc.ts';
import { deadlineIn } from '../../../../../shared/kernel/deadline.ts';
import { CniError } from '../../../../../shared/cni/errors.ts';
import { dump, type Transport } from '../../../../../shared/kernel/netlink/conversation.ts';
import {
  decodeMessages,
  encodeRequests,
  type NetlinkRequest,
} from '../../../../../shared/kernel/netlink/message.ts';
import { NetlinkSocket } from '../../../../../shared/kernel/netlink/socket.ts';
import {
  createVethRequest,
  getLinkRequest,
  linkByName,
} from '../../../../../shared/kernel/rtnetlink/links.ts';
import { decodeLink, listLinksRequest } from '../../../../../shared/kernel/rtnetlink/link-codec.ts';
import { Rtnetlink } from '../../../../../shared/kernel/rtnetlink/rtnetlink.ts';
import { inScratchNamespace } from '../../../../../shared/kernel/namespace.ts';
import { suite } from '../../../../support/suite.ts';
import { cniError, kernelError, run } from '../../../../support/kernel.ts';

const test = suite('netlink socket', { limit: 60 });
const ROUTE = 0;
const NLM_F_DUMP_INTR = 0x10;

function milliseconds(work: () => unknown): number {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e6;
}

const FORGED: NetlinkRequest = { what: 'forged', type: 16, flags: 0, body: Buffer.alloc(16) };

/** Sends a message to another netlink socket, as any privileged process may. The receiver must have a port: that it gets with its first request. */
function forge(sender: NetlinkSocket, receiver: NetlinkSocket, sequence: number): void {
  const datagram = encodeRequests([FORGED], sequence);
  const address = Buffer.alloc(12);
  checked('getsockname', libc().getsockname(receiver.fd, address, Buffer.of(12, 0, 0, 0)));
  assert.is.not(address.readUInt32LE(4), 0);
  checked('sendto', libc().sendto(sender.fd, datagram, datagram.length, 0, address, 12));
}

test('without an answer it times out with error 11', () => {
  using socket = NetlinkSocket.open(ROUTE, { timeoutMs: 150 });
  let error: Error | undefined;
  const took = milliseconds(() => (error = cniError(11, () => socket.receive(1, 1))));
  assert.ok(took >= 140 && took < 2000, `${took} ms`);
  assert.match(
    error?.message ?? '',
    /^timed out after 0\.\d s waiting for the kernel's answer to a netlink request$/,
  );
  assert.is((error?.cause as { code?: unknown }).code, 'ETIMEDOUT');
});

test('messages of another process are dropped and cannot prolong the wait', () => {
  using socket = NetlinkSocket.open(ROUTE, { timeoutMs: 200 });
  using other = NetlinkSocket.open(ROUTE);
  assert.is(linkThrough(socket), 'lo');
  for (let count = 0; count < 20; count++) forge(other, socket, 2);
  const took = milliseconds(() => cniError(11, () => socket.receive(2, 1)));
  assert.ok(took < 2000, `${took} ms`);

  forge(other, socket, 2);
  assert.is(linkThrough(socket), 'lo');
});

test('an answer to an earlier request is dropped', () => {
  using socket = NetlinkSocket.open(ROUTE);
  socket.send([getLinkRequest('lo'), getLinkRequest('nowhere')]);
  assert.is(linkThrough(socket), 'lo');
});

test('closing twice closes once, and a failed open leaks nothing', () => {
  const before = readdirSync('/proc/self/fd').length;
  const socket = NetlinkSocket.open(ROUTE);
  socket.close();
  const other = NetlinkSocket.open(ROUTE);
  socket.close();
  assert.is(linkThrough(other), 'lo');
  other.close();
  kernelError('EPROTONOSUPPORT', () => NetlinkSocket.open(31));
  assert.is(readdirSync('/proc/self/fd').length, before);
});

function linkThrough(socket: NetlinkSocket): string {
  const first = socket.send([getLinkRequest('lo')]);
  const received = socket.receive(first, 1);
  assert.is(received.length, 1);
  return decodeLink(received[0]?.body ?? Buffer.alloc(0)).name;
}

test('a datagram that is received whole stays as it is, others are dropped', () => {
  using socket = NetlinkSocket.open(ROUTE, { timeoutMs: 300 });
  using other = NetlinkSocket.open(ROUTE);
  const receive = (index: number): Buffer => {
    forge(other, socket, index);
    assert.is(socket.send([getLinkRequest('lo')]), index);
    return socket.receiveDatagram(index);
  };
  assert.is(linkThrough(socket), 'lo');
  const first = receive(2);
  const copy = Buffer.from(first);
  const others = [3, 4, 5].map(receive);
  assert.equal(first, copy);
  const names = [first, ...others].map((datagram) => decodeMessages(datagram)[0]?.body ?? Buffer.alloc(0));
  assert.equal(
    names.map((body) => decodeLink(body).name),
    ['lo', 'lo', 'lo', 'lo'],
  );
  const took = milliseconds(() => cniError(11, () => socket.receiveDatagram(99)));
  assert.ok(took >= 290 && took < 3000, `${took} ms`);
});

test('sockets know whether they are in the same namespace', () => {
  using socket = NetlinkSocket.open(ROUTE);
  using other = NetlinkSocket.open(ROUTE);
  assert.ok(socket.isInNamespaceOf(other));
  using elsewhere = inScratchNamespace(() => NetlinkSocket.open(ROUTE));
  assert.not(socket.isInNamespaceOf(elsewhere));
});

test('descriptors are not inherited by children', () => {
  using socket = NetlinkSocket.open(ROUTE);
  assert.throws(() => run('readlink', `/proc/self/fd/${socket.fd}`));
});

/** Makes and removes links until it is killed. */
function startChurn(): ChildProcess {
  const script =
    'while :; do echo "link add churn type veth peer name churn2"; echo "link del churn"; done | ip -batch -';
  return spawn('sh', ['-c', script], { stdio: 'ignore', detached: true });
}

/** On a crowded machine every attempt may meet a change: giving up with error 11 is the promise then, a torn list never. */
function namesOfLinks(transport: Transport): string[] | undefined {
  try {
    return dump(transport, listLinksRequest({})).map(({ body }) => decodeLink(body).name);
  } catch (thrown) {
    if (thrown instanceof CniError && thrown.code === 11) return undefined;
    throw thrown;
  }
}

test('a list that changes while it is read is read again, until it is complete', () => {
  using rtnetlink = Rtnetlink.open();
  const steady = Array.from({ length: 150 }, (_, at) => `steady${at}`);
  rtnetlink.batchOrThrow(steady.map((name) => createVethRequest({ name, peer: { name: `x${name}` } })));
  const churn = startChurn();
  try {
    using socket = NetlinkSocket.open(ROUTE);
    let interrupted = 0;
    const counting = {
      send: (requests: readonly NetlinkRequest[]) => socket.send(requests),
      receive: (first: number, count: number) => {
        const messages = socket.receive(first, count);
        if (messages.some(({ flags }) => (flags & NLM_F_DUMP_INTR) !== 0)) interrupted += 1;
        return messages;
      },
    };
    const deadline = deadlineIn(40_000);
    let complete = 0;
    while ((interrupted < 3 || complete < 20) && !deadline.passed()) {
      const names = namesOfLinks(counting);
      if (names === undefined) continue;
      assert.equal(names.filter((name) => name.startsWith('steady')).sort(), [...steady].sort());
      assert.is(new Set(names).size, names.length, 'no link twice');
      complete += 1;
    }
    assert.ok(complete >= 20, `${complete} whole lists`);
    assert.ok(interrupted >= 3, `the kernel flagged ${interrupted} times in ${complete} lists`);
  } finally {
    if (churn.pid !== undefined) process.kill(-churn.pid, 'SIGKILL');
  }
  assert.is(linkByName(rtnetlink, 'steady149')?.name, 'steady149');
});

test.run();
