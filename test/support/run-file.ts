import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { ON_OWN_HOST } from './own-host.ts';

export interface FileReport {
  readonly file: string;
  readonly withAgent: boolean;
  readonly passed: number;
  readonly failures: readonly { title: string; error: string }[];
  readonly skipped: readonly { title: string; reason: string }[];
  /** Tests that took longer than two seconds, in seconds: where the run's time goes. */
  readonly slow: readonly { title: string; seconds: number }[];
  readonly output: string;
  readonly milliseconds: number;
}

interface Heard {
  event: 'registered' | 'start' | 'pass' | 'fail' | 'skip' | 'end';
  suite: string;
  title: string;
  limit?: number;
  error?: string;
  reason?: string;
}

const dist = resolve(import.meta.dirname, '../../dist');
/** What a blocked test gets on top of its own limit before the whole file is killed. */
const GRACE_SECONDS = 5;
/** A file between tests (importing, hooks) may not be silent for longer. */
const SILENCE_SECONDS = 120 * Number(process.env['WEFT_TEST_TIME_FACTOR'] ?? 1);
const SLOW_SECONDS = 2;

/** Files of test/unit run as any user; all others need root and namespaces of their own. */
export function needsOwnHost(file: string): boolean {
  return !file.includes('/test/unit/');
}

/**
 * What is put before a test's command. As root a unit test, whose packet filter is in memory, could see tables of the host's iptables-legacy:
 * so it gets an empty network namespace.
 */
function surroundings(file: string): readonly string[] {
  if (needsOwnHost(file)) return ['unshare', ...ON_OWN_HOST];
  if (process.getuid?.() !== 0) return [];
  return ['unshare', '--net', '--', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh'];
}

/**
 * Runs one test file, on a host of its own where it needs one, and reports each of its tests.
 * @param withAgent the executables under test are the launchers, and a node agent runs on the test's host (own-host.sh)
 */
export async function runFile(file: string, withAgent: boolean): Promise<FileReport> {
  const began = Date.now();
  const node = [process.execPath, '--no-warnings', file];
  const [program = '', ...args] = [...surroundings(file), ...node];
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    env: {
      ...process.env,
      ...(withAgent && { WEFT_BIN: `${dist}/agent`, WEFT_TEST_AGENT: `${dist}/bin/weft` }),
      WEFT_TEST_EAR: '1',
      FORCE_COLOR: '0',
    },
  });
  const account = new Account();
  let output = '';
  const collect = (chunk: Buffer): void => void (output = (output + chunk.toString()).slice(-20_000));
  child.stdout?.on('data', collect);
  child.stderr?.on('data', collect);

  let timer = setTimeout(kill, SILENCE_SECONDS * 1000);
  createInterface({ input: child.stdio[3] as Readable }).on('line', (line) => {
    const heard = parse(line);
    if (heard === undefined) return;
    account.hear(heard);
    clearTimeout(timer);
    timer = setTimeout(
      kill,
      1000 * (heard.event === 'start' ? (heard.limit ?? 20) + GRACE_SECONDS : SILENCE_SECONDS),
    );
  });
  function kill(): void {
    account.stop();
    child.kill('SIGKILL');
  }

  const code = await new Promise<number | null>((done) => child.on('close', done));
  clearTimeout(timer);
  return { file, withAgent, ...account.close(code), output, milliseconds: Date.now() - began };
}

/** A process that is killed while it writes leaves half a line; the runner notices the missing events anyway. */
function parse(line: string): Heard | undefined {
  try {
    return JSON.parse(line) as Heard;
  } catch {
    return undefined;
  }
}

/** Counts the tests of one file; a file that reports nothing has failed. */
class Account {
  /** Tests that are registered and have not ended yet, by name. */
  readonly #waiting: string[] = [];
  #registered = 0;
  #passed = 0;
  #ended = false;
  #running: string | undefined;
  #stopped = false;
  #began = 0;
  readonly #slow: { title: string; seconds: number }[] = [];
  readonly #failures: { title: string; error: string }[] = [];
  readonly #skipped: { title: string; reason: string }[] = [];

  hear({ event, suite, title, error, reason }: Heard): void {
    const name = `${suite}: ${title}`;
    if (event === 'end') this.#ended = true;
    if (event === 'registered') {
      this.#registered += 1;
      this.#waiting.push(name);
    }
    if (event === 'start') {
      this.#running = name;
      this.#began = Date.now();
    }
    if (event === 'pass' || event === 'fail') {
      this.#time(name);
      if (this.#waiting.includes(name)) this.#waiting.splice(this.#waiting.indexOf(name), 1);
    }
    if (event === 'pass') this.#passed += 1;
    if (event === 'fail') this.#failures.push({ title: name, error: error ?? '' });
    if (event === 'skip') this.#skipped.push({ title: name, reason: reason ?? '' });
    if (event === 'pass' || event === 'fail') this.#running = undefined;
  }

  #time(title: string): void {
    const seconds = (Date.now() - this.#began) / 1000;
    if (seconds > SLOW_SECONDS) this.#slow.push({ title, seconds });
  }

  stop(): void {
    this.#stopped = true;
  }

  close(code: number | null): Pick<FileReport, 'passed' | 'failures' | 'skipped' | 'slow'> {
    const failures = this.#failures;
    if (this.#running !== undefined) {
      failures.push({
        title: this.#running,
        error: this.#stopped
          ? 'hung past its time limit; the file was killed'
          : `the process ended (exit ${code}) in the middle of this test`,
      });
    } else if (this.#stopped) {
      failures.push({ title: '(file)', error: 'hung outside of a test; killed' });
    }
    const idle = this.#waiting.filter((title) => title !== this.#running);
    if (idle.length > 0)
      failures.push({
        title: '(file)',
        error: `registered and never ran: ${idle.join(', ')}: is suite.run() missing?`,
      });
    if (this.#registered + this.#skipped.length === 0)
      failures.push({ title: '(file)', error: `registers no test (exit ${code})` });
    if (code !== 0 && failures.length === 0) failures.push({ title: '(file)', error: `exit code ${code}` });
    if (!this.#ended && failures.length === 0)
      failures.push({ title: '(file)', error: 'the process was ended before its end' });
    return { passed: this.#passed, failures, skipped: this.#skipped, slow: this.#slow };
  }
}
