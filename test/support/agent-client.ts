import { statSync } from 'node:fs';
import { connect } from 'node:net';
import { Frame, HEADER_BYTES } from '../../agent/wire.ts';
import { binDir } from './executables.ts';
import { SOCKET } from './node-agent.ts';
import { environment, inputOf, type ProcessCall, type ProcessOutcome } from './plugin.ts';

/**
 * One plugin call served by the node agent, asked for as the launcher does (docs/internals/agent.md) but without a process: many calls cost
 * little. The agent opens CNI_NETNS itself, because Node cannot pass a descriptor.
 * @returns `declined` when the executable is to be run instead: the agent says so, or the connection broke, as when a busy machine took too
 * long to send the request
 */
export function callAgent(plugin: string, call: ProcessCall): Promise<ProcessOutcome | 'declined'> {
  const limitMs = call.patience ?? PATIENCE_MS;
  const socket = connect(SOCKET);
  const received: Buffer[] = [];
  return new Promise((done, fail) => {
    socket.setTimeout(limitMs, () => socket.destroy(new Error(`${plugin}: no answer for ${limitMs} ms`)));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE' || error.code === 'ECONNRESET') done('declined');
      else fail(error);
    });
    socket.on('data', (chunk: Buffer) => received.push(chunk));
    // Without waiting for the agent's hello: it comes when the agent is ready for the call.
    socket.write(requestOf(plugin, environment(call), inputOf(call.stdin) ?? ''));
    socket.on('close', () => {
      const bytes = Buffer.concat(received);
      done(decodeAnswer(bytes.subarray(bytes.indexOf('\n') + 1)));
    });
  });
}

const PATIENCE_MS = 30_000;

function requestOf(plugin: string, env: Readonly<Record<string, string>>, stdin: string): Buffer {
  const variables = Object.entries(env).filter(([name]) => PASSED.test(name));
  const strings = Buffer.from(
    [plugin, ...variables.map(([name, value]) => `${name}=${value}`)].map((text) => `${text}\0`).join(''),
  );
  const input = Buffer.from(stdin);
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(strings.length, 0);
  header.writeUInt32LE(input.length, 4);
  ['/proc/self/ns/net', `${binDir}/bridge`].forEach((path, at) => {
    const { dev, ino } = statSync(path, { bigint: true });
    header.writeBigUInt64LE(dev, 8 + 16 * at);
    header.writeBigUInt64LE(ino, 16 + 16 * at);
  });
  return Buffer.concat([header, strings, input]);
}

/** As make_request of launcher/launcher.c selects them. */
const PASSED = /^(CNI_.*|WEFT_.*|PATH|XTABLES_LOCKFILE)$/;

function decodeAnswer(bytes: Buffer): ProcessOutcome | 'declined' {
  const output: Record<number, string> = { [Frame.stdout]: '', [Frame.stderr]: '' };
  for (let at = 0; at + 8 <= bytes.length;) {
    const [kind, value] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4)];
    at += 8;
    if (kind === Frame.declined) return 'declined';
    if (kind === Frame.exit)
      return { exitCode: value, stdout: output[Frame.stdout] ?? '', stderr: output[Frame.stderr] ?? '' };
    if (kind === Frame.queued) continue;
    output[kind] = `${output[kind] ?? ''}${bytes.toString('utf8', at, at + value)}`;
    at += value;
  }
  return 'declined';
}
