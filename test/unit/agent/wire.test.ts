import * as assert from 'uvu/assert';
import { callLine } from '../../../agent/log.ts';
import {
  bodyLength,
  decodeRequest,
  Frame,
  HEADER_BYTES,
  hello,
  lastFrame,
  outputFrame,
} from '../../../agent/wire.ts';
import { suite } from '../../support/suite.ts';

const test = suite('the protocol between launcher and agent');

function header(strings: number, stdin: number, ...identities: bigint[]): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.writeUInt32LE(strings, 0);
  bytes.writeUInt32LE(stdin, 4);
  identities.forEach((one, at) => bytes.writeBigUInt64LE(one, 8 + 8 * at));
  return bytes;
}

test('a request has name, environment, stdin and two identities', () => {
  const strings = Buffer.from('bridge\0CNI_COMMAND=ADD\0CNI_ARGS=A=1;B=\0PATH=/bin\0');
  const stdin = Buffer.from('{"name":"ä\\u0000"}');
  const head = header(strings.length, stdin.length, 4n, 2n ** 63n, 5n, 6n);
  assert.is(bodyLength(head), strings.length + stdin.length);
  assert.equal(decodeRequest(head, Buffer.concat([strings, stdin])), {
    plugin: 'bridge',
    environment: { CNI_COMMAND: 'ADD', CNI_ARGS: 'A=1;B=', PATH: '/bin' },
    stdin: '{"name":"ä\\u0000"}',
    netns: { dev: 4n, ino: 2n ** 63n },
    launcher: { dev: 5n, ino: 6n },
  });
});

test('a request without environment and stdin', () => {
  const { plugin, environment, stdin } = decodeRequest(header(9, 0), Buffer.from('loopback\0'));
  assert.equal([plugin, environment, stdin], ['loopback', {}, '']);
});

test('lengths beyond the limits are rejected', () => {
  assert.is(bodyLength(header(0, 0)), undefined);
  assert.is(bodyLength(header(2 ** 20 + 1, 0)), undefined);
  assert.is(bodyLength(header(1, 16 * 2 ** 20 + 1)), undefined);
  assert.is(bodyLength(header(2 ** 20, 16 * 2 ** 20)), 17 * 2 ** 20);
});

test('frames and hello as the launcher reads them', () => {
  assert.equal(outputFrame(Frame.stdout, 'ä'), Buffer.from([1, 0, 0, 0, 2, 0, 0, 0, 0xc3, 0xa4]));
  assert.equal(lastFrame(Frame.exit, 1), Buffer.from([3, 0, 0, 0, 1, 0, 0, 0]));
  assert.is(hello('0a').toString(), 'weft-agent 1 0a\n');
});

const REQUEST = {
  plugin: 'consul-cni',
  environment: { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'c1', CNI_ARGS: 'TOKEN=secret' },
  stdin: '{"name":"nomad","password":"secret"}',
  netns: { dev: 0n, ino: 0n },
  launcher: { dev: 0n, ino: 0n },
};

test('the log line of a call names verb, plugin, network, container, time and result, and no secret', () => {
  const success = callLine(REQUEST, { outcome: 0, stdout: '{}', network: 'nomad', milliseconds: 4.04 });
  const names = { event: 'call', verb: 'ADD', plugin: 'consul-cni', network: 'nomad', container: 'c1' };
  assert.equal(success, [
    'info',
    'ADD consul-cni network=nomad container=c1 4.0ms ok',
    { ...names, result: 'ok', ms: '4.0' },
  ]);
  const stdout = '{"code":7,"msg":"wrong"}';
  const failure = callLine(REQUEST, { outcome: 1, stdout, network: 'nomad', milliseconds: 1 });
  assert.equal(failure, [
    'error',
    'ADD consul-cni network=nomad container=c1 1.0ms error 7: wrong',
    { ...names, result: 'error', ms: '1.0' },
  ]);
  const [, declined] = callLine(REQUEST, {
    outcome: 'declined',
    stdout: '',
    network: undefined,
    milliseconds: 1,
  });
  assert.match(declined, /declined: needs a process of its own$/);
});

test('the log line of a call with unreadable input', () => {
  const request = { ...REQUEST, environment: {}, stdin: '{' };
  const [level, line] = callLine(request, { outcome: 0, stdout: '', network: undefined, milliseconds: 0.04 });
  assert.equal([level, line], ['info', 'version consul-cni network=- container=- 0.0ms ok']);
});

test.run();
