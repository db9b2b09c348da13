/**
 * What the build runs once and freezes into the startup snapshot of the executable. At start, nothing of this file or of what it
 * imports is evaluated again: V8 restores the heap and calls the function registered here.
 */
import { release } from './deterministic-heap.ts';
import { basename } from 'node:path';
import { startupSnapshot } from 'node:v8';
import { exitNow } from '../shared/kernel/libc.ts';
import { main } from '../cli/main.ts';
import { prewarm } from './prewarm.ts';
import { writeAll } from '../shared/kernel/stdio.ts';

startupSnapshot.setDeserializeMainFunction(() => void start());
// Node takes the snapshot when no promise or timer is pending.
void prewarm().then(() => {
  forgetBuilder();
  release();
});

async function start(): Promise<void> {
  // argv[1] is the name as it was called: hard links, symbolic links and `exec -a` all choose by it.
  const name = basename(process.argv[1] ?? '');
  const code = await main(name, process.argv.slice(2)).catch(report);
  if (name === 'weft') {
    process.exitCode = code;
  } else {
    exitNow(code);
  }
}

function report(thrown: unknown): number {
  writeAll(2, `${thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)}\n`);
  return 1;
}

/** Node fills these in again at every start; in the snapshot they would only make two builds differ. */
function forgetBuilder(): void {
  const blanks = { pid: 0, argv0: '', execPath: '', argv: [] };
  for (const [key, value] of Object.entries(blanks)) {
    const { writable = false, enumerable = true } = Object.getOwnPropertyDescriptor(process, key) ?? {};
    Object.defineProperty(process, key, { value, writable, enumerable, configurable: true });
  }
}
