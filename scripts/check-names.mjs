/**
 * usage: node scripts/check-names.mjs FOLDER...
 * No two product files have the same name, so that a name in a message, an import or an editor's tab means one file; roles have one in each folder.
 */
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';

/** What a file does in its folder: of a plugin, of one of its back ends, or of a variant of iptables. */
const ROLES = new Set([
  ...[
    'plugin.ts',
    'config.ts',
    'plan.ts',
    'check.ts',
    'backend.ts',
    'backends.ts',
    'masquerade.ts',
    'objects.ts',
  ],
  ...['reference.ts', 'desired.ts', 'traces.ts', 'warnings.ts', 'driver.ts'],
]);
const files = process.argv
  .slice(2)
  .flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((file) => join(folder, file)),
  )
  .filter((file) => /\.(ts|mjs|cjs)$/.test(file) && !ROLES.has(basename(file)));
/** @type {Map<string, string[]>} */
const byName = new Map();
for (const file of files) byName.set(basename(file), [...(byName.get(basename(file)) ?? []), file]);
const twins = [...byName].filter(([, paths]) => paths.length > 1);
for (const [name, paths] of twins) console.error(`${name} is the name of several files: ${paths.join(', ')}`);
process.exitCode = twins.length === 0 ? 0 : 1;
