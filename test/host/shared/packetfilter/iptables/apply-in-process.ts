import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';

const DIRECTORY = import.meta.dirname;

/** A process of its own that applies what a first ADD applies; resolves to its complaints. */
export function applyInProcess(at: number): Promise<string> {
  const file = '/run/apply.ts';
  if (at === 0) {
    writeFileSync(
      file,
      `import { chooseDriver } from '${DIRECTORY}/../../../../../shared/packetfilter/select.ts';
       const address = '10.0.0.' + process.argv[2] + '/32';
       chooseDriver().apply([{ family: 'ipv4', table: 'filter', ensureChains: ['CNI-FORWARD', 'NOMAD-ADMIN'], ensureRules: [
         { chain: 'FORWARD', rule: { target: { kind: 'jump', chain: 'CNI-FORWARD' } }, at: 'first' },
         { chain: 'CNI-FORWARD', rule: { target: { kind: 'jump', chain: 'NOMAD-ADMIN' } }, at: 'first' },
         { chain: 'CNI-FORWARD', rule: { source: { value: address }, target: { kind: 'accept' } }, at: 'last' },
       ] }]);`,
    );
  }
  const child = spawn(process.execPath, ['--no-warnings', file, String(at)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => void (output += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => void (output += chunk.toString()));
  return new Promise((done) =>
    child.on('close', (code) => done(code === 0 ? output : `exit ${code}: ${output}`)),
  );
}
