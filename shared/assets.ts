import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';

/**
 * A text file of the repository that is embedded in the executable (build.mjs lists them).
 * @param path from the repository's root: `conflist/nomad.conflist`
 */
export function readAsset(path: string): string {
  const sea = process.getBuiltinModule('node:sea');
  return sea.isSea()
    ? sea.getAsset(path, 'utf8')
    : readFileSync(resolve(import.meta.dirname, '..', path), 'utf8');
}

/** A binary file that build.mjs adds to the executable. @returns undefined when run from source, or when the build left the file out */
export function readBinaryAsset(name: string): Buffer | undefined {
  const sea = process.getBuiltinModule('node:sea');
  return sea.isSea() && sea.getAssetKeys().includes(name) ? Buffer.from(sea.getRawAsset(name)) : undefined;
}

/** What launcher and agent must have in common to work together: 32 hexadecimal digits; `source` when run from source. */
export function readRelease(): string {
  return readBinaryAsset('release')?.toString('latin1') ?? 'source'.padEnd(32, '0');
}
