import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import * as assert from 'uvu/assert';
import { setTimeout as pause } from 'node:timers/promises';
import { Frame, lastFrame, outputFrame, queuedFrame, hello } from '../../../agent/wire.ts';
import { LAUNCHERS, launchersMissing, release, SOCKET } from '../../support/node-agent.ts';
import { suite } from '../../support/suite.ts';

/** The launcher with agents that misbehave: the executable answers in their place, and two never work on one call. */
const test = suite('launcher: when the agent does not answer', { limit: 60 });
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';
const NETNS = '/run/netns/pod';
const LOOPBACK = JSON.stringify({ cniVersion: '1.0.0', name: 'n', type: 'loopback' });

interface Outcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly milliseconds: number;
}

/** `loopback ADD`, which the executable answers with a result that has an interface, unless told otherwise. */
async function call(options: { command?: string; stdin?: string; file?: string } = {}): Promise<Outcome> {
  const { command = 'ADD', stdin = LOOPBACK, file = `${LAUNCHERS}/loopback` } = options;
  const began = Date.now();
  const child = spawn(file, {
    env: {
      ...{ PATH, CNI_COMMAND: command, CNI_CONTAINERID: 'c1', CNI_NETNS: NETNS, CNI_IFNAME: 'lo' },
      ...{ CNI_PATH: LAUNCHERS, OTHER: 'not passed', WEFT_TEST: 'passed' },
    },
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin.on('error', () => undefined).end(stdin);
  const [exitCode] = (await once(child, 'close')) as [number | null];
  return { exitCode, stdout, stderr, milliseconds: Date.now() - began };
}

/** That the executable ran the call: `lo` is up, and the result names it. */
function assertExecuted({ exitCode, stdout, stderr }: Outcome): void {
  assert.equal([exitCode, stderr], [0, ''], stdout);
  assert.match(stdout, '"name": "lo"');
  assert.ok(isUp());
}

function isUp(): boolean {
  return execFileSync('ip', ['-n', 'pod', 'link', 'show', 'lo'], { encoding: 'utf8' }).includes(',UP');
}

/** An agent made of a function that gets each connection; counts them, and the bytes of requests. */
class FakeAgent {
  connections = 0;
  readonly received: Buffer[] = [];
  readonly #server: Server;
  readonly #open = new Set<Socket>();

  private constructor(serve: (connection: Socket) => void) {
    this.#server = createServer((connection) => {
      this.connections += 1;
      this.#open.add(connection);
      connection.on('error', () => undefined).on('data', (chunk: Buffer) => this.received.push(chunk));
      serve(connection);
    });
  }

  static async listen(serve: (connection: Socket) => void, path = SOCKET): Promise<FakeAgent> {
    const agent = new FakeAgent(serve);
    agent.#server.listen(path);
    await once(agent.#server, 'listening');
    chmodSync(path, 0o600);
    return agent;
  }

  get request(): Buffer {
    return Buffer.concat(this.received);
  }

  close(): void {
    for (const connection of this.#open) connection.destroy();
    this.#server.close();
  }
}

/** Serves one call of an agent that does as the launcher expects up to here: hello, and then `answer` when a request has come. */
function answering(answer: (connection: Socket) => void): (connection: Socket) => void {
  return (connection) => {
    connection.write(hello(release()));
    connection.once('data', () => answer(connection));
  };
}

async function withAgent<T>(
  serve: (connection: Socket) => void,
  work: (agent: FakeAgent) => Promise<T>,
): Promise<T> {
  const agent = await FakeAgent.listen(serve);
  try {
    return await work(agent);
  } finally {
    agent.close();
  }
}

test.beforeEach(() => {
  rmSync('/run/weft', { recursive: true, force: true });
  mkdirSync('/run/weft', { mode: 0o700 });
  spawnSync('ip', ['netns', 'del', 'pod']);
  execFileSync('ip', ['netns', 'add', 'pod']);
});

if (launchersMissing !== undefined) test.skip('all', launchersMissing);
else addTests();

function addTests(): void {
  test('without a socket', async () => {
    const outcome = await call();
    assertExecuted(outcome);
  });

  test('a socket that nothing listens on', async () => {
    (await FakeAgent.listen(() => undefined, `${SOCKET}.old`)).close();
    const bind = `require('net').createServer().listen('${SOCKET}', () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', bind]);
    chmodSync(SOCKET, 0o600);
    assertExecuted(await call());
  });

  test('a path that is no socket, or not only root’s, is not connected to', async () => {
    const obstacles: Readonly<Record<string, () => void>> = {
      'a FIFO': () => execFileSync('mkfifo', [SOCKET]),
      'a file': () => writeFileSync(SOCKET, 'x'),
      'a directory': () => mkdirSync(SOCKET),
      'a symbolic link to a socket': () => symlinkSync('/run/weft/real.sock', SOCKET),
    };
    const agent = await FakeAgent.listen(() => undefined, '/run/weft/real.sock');
    for (const [what, make] of Object.entries(obstacles)) {
      make();
      assertExecuted(await call());
      rmSync(SOCKET, { recursive: true });
      assert.is(agent.connections, 0, what);
    }
    agent.close();
    await withAgent(
      () => undefined,
      async (other) => {
        chownSync(SOCKET, 1000, 1000);
        assertExecuted(await call());
        chownSync(SOCKET, 0, 0);
        chmodSync(SOCKET, 0o660);
        assertExecuted(await call());
        assert.is(other.connections, 0);
      },
    );
  });

  for (const [title, bytes] of Object.entries({
    'an agent of another release': hello('f'.repeat(32)),
    'an agent of another protocol': Buffer.from(`weft-agent 2 ${'f'.repeat(32)}\n`),
    garbage: Buffer.alloc(100, 0xff),
    'half a hello': Buffer.from('weft-agent 1 '),
  })) {
    test(`${title} gets no request`, () =>
      withAgent(
        (connection) => connection.end(bytes),
        async (agent) => {
          assertExecuted(await call());
          assert.equal([agent.connections, agent.request.length], [1, 0]);
        },
      ));
  }

  test('an agent that is busy for more than 100 ms gets no request', () =>
    withAgent(
      (connection) => void setTimeout(() => connection.write(hello(release())), 2_000),
      async (agent) => {
        const outcome = await call();
        assertExecuted(outcome);
        assert.ok(outcome.milliseconds >= 100);
        await pause(2_000);
        assert.is(agent.request.length, 0);
      },
    ));

  test('an agent that begins calls meanwhile is waited for', () => {
    let serving: NodeJS.Timeout | undefined;
    return withAgent(
      (connection) => {
        serving ??= setInterval(() => utimesSync(SOCKET, Date.now() / 1000, Date.now() / 1000), 50);
        setTimeout(() => connection.write(hello(release())), 1_500);
        connection.once('data', () => connection.write(lastFrame(Frame.exit, 9)));
      },
      async (agent) => {
        assert.is((await call()).exitCode, 9);
        clearInterval(serving);
        assert.is(agent.connections, 1);
        assert.not(isUp());
      },
    );
  });

  for (const [title, answer] of Object.entries<(connection: Socket) => void>({
    'the connection ends without an answer': (connection) => connection.destroy(),
    'the connection ends inside a frame’s header': (connection) => connection.end(Buffer.of(1, 0)),
    'the connection ends inside a frame': (connection) =>
      connection.end(outputFrame(Frame.stdout, 'partial').subarray(0, 10)),
    'the connection ends before the exit code': (connection) =>
      connection.end(outputFrame(Frame.stdout, 'result')),
    'the answer is garbage': (connection) => connection.end(Buffer.alloc(4096, 0xee)),
    'the answer announces 4 GiB': (connection) => connection.write(Buffer.from('01000000ffffffff', 'hex')),
    'the exit code is none': (connection) => connection.write(lastFrame(Frame.exit, 256)),
    'the agent declines': (connection) => connection.write(lastFrame(Frame.declined, 0)),
  })) {
    test(`${title}: the executable answers`, () =>
      withAgent(answering(answer), async (agent) => {
        assertExecuted(await call());
        assert.is(agent.connections, 1);
      }));
  }

  test('an accepted call without an answer for 15 s fails with code 11, and the executable is not run', () =>
    withAgent(
      answering(() => undefined),
      async () => {
        const { exitCode, stdout, milliseconds } = await call();
        const { code, msg } = JSON.parse(stdout) as { code: number; msg: string };
        assert.equal([exitCode, code], [1, 11]);
        assert.match(msg, 'timed out after 15 s waiting for the answer of the node agent');
        assert.ok(milliseconds >= 15_000 && milliseconds < 25_000);
        assert.not(isUp());
      },
    ));

  test('stdout, stderr and exit code arrive as sent, also byte by byte', () =>
    withAgent(
      (connection) => {
        connection.setNoDelay(true);
        const frames = [
          outputFrame(Frame.stdout, ''),
          outputFrame(Frame.stderr, 'one\n'),
          queuedFrame(),
          outputFrame(Frame.stdout, '{"a":1}'),
          outputFrame(Frame.stderr, 'two\n'),
          outputFrame(Frame.stdout, 'ä'.repeat(100)),
          lastFrame(Frame.exit, 7),
        ];
        const trickle = async (bytes: Buffer): Promise<void> => {
          for (const byte of bytes) {
            connection.write(Buffer.of(byte));
            await pause(0);
          }
        };
        void trickle(hello(release()));
        connection.once('data', () => void trickle(Buffer.concat(frames)));
      },
      async () => {
        const { exitCode, stdout, stderr } = await call();
        assert.equal([exitCode, stdout, stderr], [7, `{"a":1}${'ä'.repeat(100)}`, 'one\ntwo\n']);
        assert.not(isUp());
      },
    ));

  test('a result of 5 MB arrives', () =>
    withAgent(
      answering((connection) => {
        connection.write(outputFrame(Frame.stdout, 'x'.repeat(5_000_000)));
        connection.write(lastFrame(Frame.exit, 0));
      }),
      async () => assert.is((await call()).stdout.length, 5_000_000),
    ));

  test('the request has CNI_*, WEFT_* and PATH of the environment, and all of stdin', () =>
    withAgent(
      (connection) => {
        connection.write(hello(release()));
        // Nothing is read for a while: the launcher sends in several steps.
        connection.pause();
        setTimeout(() => connection.resume(), 300);
        let length = 0;
        connection.on('data', (chunk: Buffer) => {
          length += chunk.length;
          if (length > 10_000_000) connection.end(lastFrame(Frame.exit, 0));
        });
      },
      async (agent) => {
        const stdin = `${LOOPBACK}${' '.repeat(10_000_000)}`;
        assert.is((await call({ stdin })).exitCode, 0);
        const strings = agent.request.readUInt32LE(0);
        assert.is(agent.request.readUInt32LE(4), stdin.length);
        const words = agent.request.toString('utf8', 40, 40 + strings).split('\0');
        assert.is(words[0], 'loopback');
        assert.ok(words.includes('CNI_CONTAINERID=c1') && words.includes('WEFT_TEST=passed'));
        assert.ok(words.includes(`PATH=${PATH}`));
        assert.not(words.some((word) => word.startsWith('OTHER=')));
        assert.is(agent.request.toString('utf8', 40 + strings), stdin);
      },
    ));

  test('the executable gets the same stdin: none, 10 MB, and more than any plugin takes', async () => {
    const none = JSON.parse((await call({ stdin: '' })).stdout) as { code: number };
    assert.is(none.code, 6);
    const valid = Array.from({ length: 90_000 }, (_, at) => ({ containerID: `c${at}`, ifname: 'eth0' }));
    const list = {
      ...JSON.parse(LOOPBACK),
      cniVersion: '1.1.0',
      'cni.dev/valid-attachments': valid,
    } as object;
    const large = await call({ command: 'GC', stdin: JSON.stringify(list).padEnd(10_000_000) });
    assert.equal([large.exitCode, large.stdout, large.stderr], [0, '', '']);
    const tooLarge = await call({ command: 'GC', stdin: LOOPBACK.padEnd(18_000_000) });
    assert.match(tooLarge.stdout, 'larger than 16 MiB');
  });

  test('version line and VERSION are those of the executable', () => {
    for (const env of [{}, { CNI_COMMAND: 'VERSION' }]) {
      const [one, other] = [`${LAUNCHERS}/bridge`, `${LAUNCHERS}/../bin/bridge`].map((file) => {
        const { status, stdout, stderr } = spawnSync(file, { env, encoding: 'utf8' });
        return { status, stdout, stderr };
      });
      assert.equal(one, other);
    }
  });

  test('closed descriptors 0, 1 and 2', () => {
    const script = `${LAUNCHERS}/loopback 0<&- 1>&- 2>&-; echo $?`;
    const env = { PATH, CNI_COMMAND: 'STATUS', CNI_PATH: LAUNCHERS };
    assert.is(spawnSync('sh', ['-c', script], { env, encoding: 'utf8' }).stdout, '1\n');
  });

  test('a launcher without its executable says so', async () => {
    mkdirSync('/run/alone', { recursive: true });
    copyFileSync(`${LAUNCHERS}/loopback`, '/run/alone/loopback');
    const { exitCode, stdout } = await call({ file: '/run/alone/loopback' });
    const { code, msg, details } = JSON.parse(stdout) as { code: number; msg: string; details: string };
    assert.equal([exitCode, code, details], [1, 5, 'No such file or directory']);
    assert.match(msg, `cannot execute .weft/${release()} in the directory of the launcher`);
  });

  test('a symbolic link to a launcher finds the executable beside the launcher', async () => {
    rmSync('/run/links', { recursive: true, force: true });
    mkdirSync('/run/links');
    symlinkSync(`${LAUNCHERS}/loopback`, '/run/links/loopback');
    assertExecuted(await call({ file: '/run/links/loopback' }));
  });
}

test.run();
