/**
 * What launcher and agent send each other (docs/internals/agent.md); launcher/launcher.c is the other side. Numbers are in the byte order of
 * the machine, little-endian on x64 and arm64.
 */

/** One plugin call as the launcher passes it. */
export interface Request {
  /** The name that the launcher was called by. */
  readonly plugin: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly stdin: string;
  /** Network namespace that the launcher runs in. */
  readonly netns: FileIdentity;
  /** The launcher's file. */
  readonly launcher: FileIdentity;
}

export interface FileIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
}

/** What the agent sends first, when it is ready for the call. A launcher of another build, or of another protocol, goes on without it. */
export function hello(release: string): Buffer {
  return Buffer.from(`weft-agent 1 ${release}\n`);
}

/**
 *    0             4           8            16           24              32             40
 *    +-------------+-----------+------------+------------+---------------+--------------+----------------------------+-------+
 *    | strings u32 | stdin u32 | netns dev  | netns inode | launcher dev | launcher ino | name NUL, VARIABLE NUL ... | stdin |
 *    +-------------+-----------+------------+------------+---------------+--------------+----------------------------+-------+
 */
export const HEADER_BYTES = 40;

/** As the launcher limits them (STRINGS_LIMIT, STDIN_LIMIT and one byte). */
const STRINGS_LIMIT = 2 ** 20;
const STDIN_LIMIT = 16 * 2 ** 20;

/** Bytes that follow the header; undefined when it cannot be one. */
export function bodyLength(header: Buffer): number | undefined {
  const [strings, stdin] = [header.readUInt32LE(0), header.readUInt32LE(4)];
  return strings === 0 || strings > STRINGS_LIMIT || stdin > STDIN_LIMIT ? undefined : strings + stdin;
}

/** The request; the body has the length that {@link bodyLength} gave. */
export function decodeRequest(header: Buffer, body: Buffer): Request {
  const strings = header.readUInt32LE(0);
  const [plugin = '', ...variables] = body.toString('utf8', 0, strings - 1).split('\0');
  const environment = variables.map((text) => {
    const at = text.indexOf('=');
    return [text.slice(0, at), text.slice(at + 1)] as const;
  });
  const identity = (at: number): FileIdentity => ({
    dev: header.readBigUInt64LE(at),
    ino: header.readBigUInt64LE(at + 8),
  });
  return {
    plugin,
    environment: Object.fromEntries(environment),
    stdin: body.toString('utf8', strings),
    netns: identity(8),
    launcher: identity(24),
  };
}

/**
 * Of the answer: any number of `stdout` and `stderr`, then `exit`; or `declined` alone. `queued` may come at any time: the call waits for a
 * lock that other calls hand on, and the launcher's time starts again.
 */
export const Frame = { stdout: 1, stderr: 2, exit: 3, declined: 4, queued: 5 } as const;

/** | kind u32 | length u32 | bytes | */
export function outputFrame(kind: typeof Frame.stdout | typeof Frame.stderr, text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([numbers(kind, bytes.length), bytes]);
}

/** | kind u32 | exit code u32 |; it ends the answer. */
export function lastFrame(kind: typeof Frame.exit | typeof Frame.declined, code: number): Buffer {
  return numbers(kind, code);
}

/** | kind u32 | 0 u32 | */
export function queuedFrame(): Buffer {
  return numbers(Frame.queued, 0);
}

function numbers(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, at) => bytes.writeUInt32LE(value, 4 * at));
  return bytes;
}
