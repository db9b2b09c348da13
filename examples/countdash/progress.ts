import { writeAll } from '../../shared/kernel/stdio.ts';

/** How often a line of a log that says the same again is shown. */
const REPEAT_MS = 10_000;

/** Progress on stdout. Write errors are ignored: a closed pipe must not interrupt the clean-up. */
export class Progress {
  readonly #shown = new Map<string, { at: number; hidden: number }>();

  line(text = ''): void {
    try {
      writeAll(1, `${text}\n`);
    } catch {
      // The reader has closed the pipe.
    }
  }

  /** Runs one step and prints its duration; `what` may be computed from the result. */
  async step<T>(what: string | ((result: T) => string), work: () => T | Promise<T>): Promise<T> {
    const began = Date.now();
    const result = await work();
    const duration = `${Date.now() - began} ms`;
    this.line(`${duration.padStart(9)}  ${typeof what === 'string' ? what : what(result)}`);
    return result;
  }

  /** A line from a log: a refused call repeats each second, and is shown now and then. */
  log(text: string): void {
    const known = this.#shown.get(text);
    if (known !== undefined && Date.now() - known.at < REPEAT_MS) {
      known.hidden += 1;
      return;
    }
    this.#shown.set(text, { at: Date.now(), hidden: 0 });
    this.line(
      `${'log'.padStart(9)}  ${text}${known === undefined || known.hidden === 0 ? '' : ` (${known.hidden + 1} times)`}`,
    );
  }
}
