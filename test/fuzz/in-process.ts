import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { pluginNamed } from '../../plugins/index.ts';
import { configurationOfAdd } from '../../shared/attachments/cached-results.ts';
import { runPlugin } from '../../shared/cni/protocol.ts';
import { isOwnNamespace } from '../../shared/kernel/namespace.ts';
import type { Case } from './cases.ts';
import type { Cost } from './executables.ts';
import type { Answer } from './judge.ts';

/**
 * A CNI_PATH for calls inside this process: its host-local is the very program that runs, as it is the very executable of bridge in the suite, so
 * that its work is done in process.
 */
export function inProcessFolder(): string {
  const folder = '/run/bin';
  mkdirSync(folder, { recursive: true });
  if (!existsSync(`${folder}/host-local`)) symlinkSync(process.execPath, `${folder}/host-local`);
  return folder;
}

/** Runs the case's plugin from source, inside this process: some ten times as fast as its executable. */
export async function runInProcess({
  plugin,
  environment,
  stdin,
}: Case): Promise<{ answer: Answer; cost: Cost }> {
  const loaded = await pluginNamed(plugin)?.load();
  if (loaded === undefined) throw new Error(`no plugin is named ${plugin}`);
  const began = performance.now();
  let out = '';
  let err = '';
  const exitCode = runPlugin(loaded, {
    environment,
    readStdin: () => stdin,
    isOwnNamespace,
    configurationOfAdd,
    writeOut: (text) => (out += text),
    writeErr: (text) => (err += text),
  });
  return {
    answer: { exitCode, out, err },
    cost: { seconds: (performance.now() - began) / 1000, mebibytes: 0 },
  };
}
