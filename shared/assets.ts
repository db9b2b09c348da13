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
