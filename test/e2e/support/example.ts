import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { binDir, executable } from '../../support/executables.ts';

/** `weft countdash` as a user starts it, with the executables under test. */
export interface Outcome {
  readonly exitCode: number | null;
  readonly output: string;
}

export function countdashOnce(...options: string[]): Outcome {
  const { status, stdout, stderr } = spawnSync(
    executable('weft'),
    ['countdash', '--once', ...options, '--bin-dir', binDir],
    {
      encoding: 'utf8',
      timeout: 280_000,
      killSignal: 'SIGKILL',
    },
  );
  return { exitCode: status, output: stdout + stderr };
}

/** A run that goes on until it is ended. */
export class RunningExample {
  readonly child: ChildProcess;
  output = '';
  readonly ended: Promise<number | null>;

  constructor(...options: string[]) {
    this.child = spawn(executable('weft'), ['countdash', ...options, '--bin-dir', binDir], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const collect = (chunk: Buffer): void => void (this.output += chunk.toString());
    this.child.stdout?.on('data', collect);
    this.child.stderr?.on('data', collect);
    this.ended = new Promise((done) =>
      this.child.once('close', (code, signal) => done(signal === null ? code : null)),
    );
  }

  /** Waits until the output matches; throws with the output when the run ends first. */
  async says(pattern: RegExp): Promise<RegExpExecArray> {
    let over = false;
    void this.ended.then(() => (over = true));
    for (;;) {
      const match = pattern.exec(this.output);
      if (match !== null) return match;
      if (over) throw new Error(`ended without saying ${String(pattern)}:\n${this.output}`);
      await new Promise((done) => setTimeout(done, 50));
    }
  }

  /** The address of the page that it prints. */
  async page(): Promise<string> {
    const [, url = ''] = await this.says(/The page: (\S+)/);
    return url;
  }
}
