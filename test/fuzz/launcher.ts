/** Coverage-guided fuzzing of the launcher's parser by libFuzzer, with the sanitizers for addresses and undefined behaviour. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Frame, lastFrame, outputFrame, queuedFrame } from '../../agent/wire.ts';

/** An input that fails is kept, and libFuzzer prints its path. @returns the exit status */
export function fuzzLauncher(seconds: number): number {
  const work = mkdtempSync(join(tmpdir(), 'weft-fuzz-launcher-'));
  const binary = join(work, 'fuzz');
  const source = join(import.meta.dirname, 'launcher.c');
  const flags = ['-std=c11', '-g', '-O1', '-fsanitize=fuzzer,address,undefined', '-fno-sanitize-recover=all'];
  const compiled = spawnSync('clang', [...flags, '-DRELEASE="fuzz"', '-o', binary, source], {
    stdio: 'inherit',
  });
  if (compiled.status !== 0) return 1;
  const corpus = join(work, 'corpus');
  mkdirSync(corpus);
  for (const [name, bytes] of Object.entries(ANSWERS)) writeFileSync(join(corpus, name), bytes);
  const { status } = spawnSync(
    binary,
    [`-max_total_time=${seconds}`, `-max_len=${LONGEST}`, '-print_final_stats=1', '-verbosity=1', corpus],
    { stdio: 'inherit', cwd: work },
  );
  if (status === 0) rmSync(work, { recursive: true });
  return status ?? 1;
}

/** What a socket takes at once. */
const LONGEST = 65_536;

/** Answers that an agent gives, to begin with. */
const ANSWERS: Readonly<Record<string, Buffer>> = {
  success: Buffer.concat([outputFrame(Frame.stdout, '{}'), lastFrame(Frame.exit, 0)]),
  failure: Buffer.concat([
    queuedFrame(),
    outputFrame(Frame.stderr, 'warning\n'),
    outputFrame(Frame.stdout, '{"code": 7}'),
    lastFrame(Frame.exit, 1),
  ]),
  declined: lastFrame(Frame.declined, 0),
};
