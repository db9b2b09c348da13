import { basename } from 'node:path';
import { CniCode, CniError, toCniError } from '../../shared/cni/errors.ts';
import { findProgram, runProgram, type RunResult } from '../../shared/process/run-program.ts';

/** Nomad waits 3 s for a plugin's version; a busy host gets more here. */
const TIMEOUT_MS = 10_000;
const VERSION_TIMEOUT_MS = 3_000;

/** Runs a plugin as Nomad's fingerprint does: without arguments, with an empty environment. */
export type RunPlugin = (path: string, timeoutMs: number) => RunResult;

/** @throws CniError 5 for the first that does not answer with the version */
export function verifyPlugins(paths: readonly string[], version: string, run: RunPlugin): void {
  for (const path of paths) verifyPlugin(path, version, run);
}

function verifyPlugin(path: string, version: string, run: RunPlugin): void {
  let result: RunResult;
  try {
    result = run(path, TIMEOUT_MS);
  } catch (thrown) {
    const { message, details } = toCniError(thrown);
    throw new CniError(CniCode.IoFailure, `${path} does not run on this host: ${message}`, {
      details: `${details === undefined || details === '' ? '' : `${details}; `}is it for this architecture, and is its file system mounted without noexec?`,
      cause: thrown,
    });
  }
  const { exitCode, stdout, stderr } = result;
  if (exitCode === 0 && stderr.startsWith(`CNI ${basename(path)} plugin v${version}\n`)) return;
  const printed = `${stdout}${stderr}`.trim().slice(0, 500);
  throw new CniError(
    CniCode.IoFailure,
    `${path} does not run on this host: exit status ${exitCode}: ${printed}`,
    {
      details: `it needs Linux on ${process.arch}, glibc 2.28 or newer and libstdc++`,
    },
  );
}

/** @returns what the file prints when it is asked for its version; empty when it does not run */
export function printedVersion(path: string, run: RunPlugin): string {
  try {
    const { stdout, stderr } = run(path, VERSION_TIMEOUT_MS);
    return `${stderr}${stdout}`.trim();
  } catch {
    return '';
  }
}

/** @param root another file system than this host's: the plugin runs in it, with its C library */
export function pluginRunner(root: string): RunPlugin {
  return (path, timeoutMs) => {
    const options = { env: {}, timeoutMs };
    if (root === '/') return runProgram(path, [], options);
    const chroot = findProgram('chroot');
    if (chroot === undefined) throw new CniError(CniCode.IoFailure, 'chroot (coreutils) not found');
    return runProgram(chroot, [root, path.slice(root.length)], options);
  };
}
