/**
 * TypeScript sources -> CommonJS files. `bundle.cjs`, evaluated by `plugins.cjs`, becomes the startup snapshot; what a plugin rarely or
 * never needs stays outside of it, as files inside the executable that are evaluated when they are first used: every start restores the
 * whole snapshot.
 */
import { copyFileSync, globSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { build } from 'esbuild';
import { netlinkAsModules, plainBuiltins } from './leaner.mjs';

/** Files that `readAsset` (shared/assets.ts) finds in the executable under the same path. */
const ASSETS = ['conflist/*.conflist', 'examples/**/*.{html,css,svg,txt}'];

/**
 * @typedef {object} LatePart a bundle of its own, evaluated on first use
 * @property {string} name
 * @property {RegExp} imported   the import that it answers
 * @property {RegExp} importer   in which files
 * @property {readonly string[]} exports   functions, called through
 * @property {string} entry   what the part contains, as a module
 */

/** @type {readonly LatePart[]} */
const LATE_PARTS = [
  {
    name: 'weft',
    imported: /^\.\/weft\.ts$/,
    importer: /cli\/main\.ts$/,
    exports: ['weft'],
    entry: "export { weft } from './cli/weft.ts';",
  },
  {
    name: 'countdash',
    imported: /^\.\.\/examples\/countdash\/countdash\.ts$/,
    importer: /cli\/weft\.ts$/,
    exports: ['countdash', 'countdashChild'],
    entry: "export { countdash, countdashChild } from './examples/countdash/countdash.ts';",
  },
  {
    name: 'execa',
    imported: /^execa$/,
    importer: /shared\/process\//,
    exports: ['execaSync'],
    entry: "export { execaSync } from 'execa';",
  },
  {
    name: 'dbus',
    imported: /^dbus-native\/lib\/message\.js$/,
    importer: /firewalld\/dbus\//,
    exports: ['marshall', 'unmarshall'],
    entry: "export { marshall, unmarshall } from 'dbus-native/lib/message.js';",
  },
];

/**
 * @param {string} root the repository
 * @param {string} folder for the results
 * @param {string} [entry] what becomes the snapshot
 * @returns {Promise<{ snapshot: string, late: string[], inputs: string[] }>} the files, and every source file that went in
 */
export async function bundle(root, folder, entry = 'build/entry.ts') {
  const inputs = new Set(
    await bundleOne(root, { entryPoints: [entry] }, join(folder, 'bundle.cjs'), LATE_PARTS),
  );
  const snapshot = join(folder, 'plugins.cjs');
  copyFileSync(resolve(import.meta.dirname ?? '', 'compile-eagerly.cjs'), snapshot);
  const late = [];
  for (const { name, entry: contents } of LATE_PARTS) {
    const file = join(folder, `${name}.cjs`);
    const stdin = {
      contents,
      resolveDir: root,
      sourcefile: `${name}.ts`,
      loader: /** @type {const} */ ('ts'),
    };
    const others = LATE_PARTS.filter((part) => part.name === 'countdash' && name === 'weft');
    for (const input of await bundleOne(root, { stdin }, file, others)) inputs.add(input);
    late.push(file);
  }
  return { snapshot, late, inputs: [...inputs] };
}

/** @param {string} root @returns {Record<string, string>} path from the repository's root -> absolute file */
export function textAssets(root) {
  const files = ASSETS.flatMap((pattern) => globSync(pattern, { cwd: root })).sort();
  return Object.fromEntries(files.map((file) => [file, resolve(root, file)]));
}

/**
 * @param {string} root @param {import('esbuild').BuildOptions} entry @param {string} outfile @param {readonly LatePart[]} late
 */
async function bundleOne(root, entry, outfile, late) {
  const { metafile } = await build({
    ...entry,
    absWorkingDir: root,
    outfile,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node26',
    minify: true,
    legalComments: 'none',
    // A snapshot has no module loader: `import('node:x')` becomes a require at the same place.
    supported: { 'dynamic-import': false },
    // Asked for only where no executable is running.
    define: { 'import.meta.dirname': '"/"', 'import.meta.url': '"file:///"' },
    alias: { 'node-gyp-build': resolve(root, 'build/no-addon.cjs') },
    plugins: [plainBuiltins, netlinkAsModules, ...late.map(lateBound)],
    metafile: true,
    logLevel: 'warning',
  });
  return Object.keys(metafile.inputs);
}

/** Answers the import of a late part by functions that load it. @param {LatePart} part @returns {import('esbuild').Plugin} */
function lateBound({ name, imported, importer, exports }) {
  return {
    name: `late part ${name}`,
    setup({ onResolve, onLoad }) {
      onResolve({ filter: imported }, (found) =>
        importer.test(found.importer) ? { path: name, namespace: `late-${name}` } : undefined,
      );
      onLoad({ filter: /./, namespace: `late-${name}` }, () => ({
        contents: [
          `import { loadPart } from './build/load-part.cjs';`,
          ...exports.map(
            (key) =>
              `export const ${key} = (...args) => loadPart(${JSON.stringify(name)}, require).${key}(...args);`,
          ),
        ].join('\n'),
        resolveDir: resolve(import.meta.dirname ?? '', '..'),
      }));
    },
  };
}
