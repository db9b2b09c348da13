import { writeSync, fstatSync } from 'node:fs';
import { suite as uvuSuite } from 'uvu';

/**
 * Test suites on uvu, with its holes closed: the runner hears each test registered, started and ended (so it can stop one that hangs,
 * even in a blocking system call, and name each that never ran), each hook that fails, and the file's regular end.
 * A test that awaits longer than its limit fails here; one that blocks the thread is killed by the runner.
 */
export type TestBody = () => void | Promise<void>;

export interface Suite {
  (title: string, body: TestBody): void;
  /** A test that cannot run on this machine; `reason` is printed and counted. */
  skip(title: string, reason: string): void;
  before(body: TestBody): void;
  after(body: TestBody): void;
  beforeEach(body: TestBody): void;
  afterEach(body: TestBody): void;
  run(): void;
}

/** On a slow machine (`npm run vm`: an emulated processor) every limit is multiplied. */
export const TIME_FACTOR = Number(process.env['WEFT_TEST_TIME_FACTOR'] ?? 1);

/** @param options.limit seconds a single test may take (default 20) */
export function suite(name: string, options: { limit?: number } = {}): Suite {
  const limit = (options.limit ?? 20) * TIME_FACTOR;
  const inner = uvuSuite(name);
  const add = (title: string, body: TestBody): void => {
    tell({ event: 'registered', suite: name, title });
    inner(title, async () => {
      tell({ event: 'start', suite: name, title, limit });
      try {
        await withinLimit(body, limit);
        tell({ event: 'pass', suite: name, title });
      } catch (error) {
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
        tell({ event: 'fail', suite: name, title, error: `${text}${describeAssertion(error)}` });
        throw error;
      }
    });
  };
  return Object.assign(add, {
    skip: (title: string, reason: string) => tell({ event: 'skip', suite: name, title, reason }),
    before: (body: TestBody) => inner.before(hook(name, 'before', body)),
    after: (body: TestBody) => inner.after(hook(name, 'after', body)),
    beforeEach: (body: TestBody) => inner.before.each(hook(name, 'beforeEach', body)),
    afterEach: (body: TestBody) => inner.after.each(hook(name, 'afterEach', body)),
    run: () => inner.run(),
  });
}

/** uvu counts a failing hook as no failure at all; it is reported to the runner here. */
function hook(name: string, kind: string, body: TestBody): TestBody {
  return async () => {
    try {
      await body();
    } catch (error) {
      tell({
        event: 'fail',
        suite: name,
        title: `(${kind} hook)`,
        error: error instanceof Error ? error.stack : String(error),
      });
      throw error;
    }
  };
}

async function withinLimit(body: TestBody, limit: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`took longer than its limit of ${limit} s`)), limit * 1000);
  });
  try {
    await Promise.race([body(), late]);
  } finally {
    clearTimeout(timer);
  }
}

function describeAssertion(error: unknown): string {
  const details = (error as { details?: unknown } | null)?.details;
  return typeof details === 'string' ? `\n${details}` : '';
}

/** Descriptor 3 is the runner's ear; a test file run by hand (`node file.test.ts`) has none and loses nothing but the count. */
const EAR = 3;
const hasEar = process.env['WEFT_TEST_EAR'] === '1' && isOpen(EAR);

// A process that was ended from below (`_exit`, a signal) never says this, and the runner takes nothing it did for granted.
process.once('exit', () => tell({ event: 'end', suite: '', title: '' }));

function tell(message: Record<string, unknown>): void {
  if (message['event'] === 'skip')
    process.stdout.write(
      `SKIP ${String(message['suite'])}: ${String(message['title'])}: ${String(message['reason'])}\n`,
    );
  if (hasEar) writeSync(EAR, `${JSON.stringify(message)}\n`);
}

function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}
