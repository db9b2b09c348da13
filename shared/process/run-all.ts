import { execa } from 'execa';

/** How a program ended. */
export interface Ended {
  readonly file: string;
  readonly outcome:
    | { readonly is: 'exited'; readonly exitCode: number; readonly output: string }
    | { readonly is: 'timed out' }
    /** It could not be started, or was killed by a signal. */
    | { readonly is: 'failed'; readonly reason: string };
}

export interface RunAllOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Each program is killed after this time. */
  readonly timeoutMs: number;
}

/**
 * Runs programs side by side, without arguments and with nothing on stdin, each to its end. Their standard output and error are read together
 * and cut at {@link OUTPUT_LIMIT_CHARACTERS}.
 */
export async function runAll(files: readonly string[], options: RunAllOptions): Promise<Ended[]> {
  const ended: Ended[] = [];
  const waiting = [...files];
  const worker = async (): Promise<void> => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift())
      ended.push(await runOne(file, options));
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
  return ended;
}

async function runOne(file: string, { env, timeoutMs }: RunAllOptions): Promise<Ended> {
  const child = execa(file, [], {
    all: true,
    stdin: 'ignore',
    env: defined(env),
    extendEnv: false,
    // A process group of its own: what the program started would keep its output open after it is killed.
    detached: true,
    maxBuffer: OUTPUT_LIMIT_CHARACTERS,
    reject: false,
    cwd: '/',
    verbose: 'none',
  });
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
  }, timeoutMs);
  const { all, exitCode, signal, code } = await child;
  clearTimeout(timer);
  if (timedOut) return { file, outcome: { is: 'timed out' } };
  if (exitCode !== undefined) return { file, outcome: { is: 'exited', exitCode, output: all } };
  const reason = signal === undefined ? (code ?? 'cannot be started') : `killed by ${signal}`;
  return { file, outcome: { is: 'failed', reason } };
}

const SIDE_BY_SIDE = 8;
const OUTPUT_LIMIT_CHARACTERS = 64 * 1024;

function defined(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}
