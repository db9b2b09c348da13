import { build } from 'esbuild';
import { copyFileSync, globSync, readFileSync } from 'node:fs';
import { createRequire, isBuiltin } from 'node:module';
import { join, resolve } from 'node:path';

/**
 * TypeScript sources -> CommonJS files. `bundle.cjs`, evaluated by `plugins.cjs`, becomes the startup snapshot. Code that plugins rarely
 * need is not in it, because every start restores the whole snapshot: it is a file inside the executable, evaluated on first use.
 */

/** Files that `readAsset` (shared/assets.ts) finds in the executable under the same path; also sources in stamp.mjs. */
const ASSETS = [
  'conflist/*.conflist',
  'examples/**/*.{html,css,svg,txt,hcl}',
  'packaging/systemd/weft-agent.service',
  'docs/reference/configuration.md',
];

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
    name: 'agent',
    imported: /^\.\.\/agent\/agent\.ts$/,
    importer: /cli\/weft\.ts$/,
    exports: ['agent'],
    entry: "export { agent } from './agent/agent.ts';",
  },
  {
    name: 'metrics',
    imported: /^\.\/metrics\/server\.ts$/,
    importer: /agent\/agent\.ts$/,
    exports: ['serveMetrics'],
    entry: "export { serveMetrics } from './agent/metrics/http-server.ts';",
  },
  {
    name: 'verdict',
    imported: /^\.\/verdict\/forward-drops\.ts$/,
    importer: /packetfilter\/forward-warnings\.ts$/,
    exports: ['describeForwardDrops'],
    entry: "export { describeForwardDrops } from './shared/packetfilter/verdict/forward-drops.ts';",
  },
];

/** Parts that another part loads when it needs them, as the snapshot does. @type {Readonly<Record<string, readonly string[]>>} */
const PARTS_OF_PARTS = { weft: ['countdash', 'agent'], agent: ['verdict', 'metrics'] };

/**
 * @param {string} root the repository
 * @param {string} folder for the results
 * @param {string} [entry] entry module of the snapshot
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
    const others = LATE_PARTS.filter((part) => PARTS_OF_PARTS[name]?.includes(part.name));
    for (const input of await bundleOne(root, { stdin }, file, others)) inputs.add(input);
    late.push(file);
  }
  return { snapshot, late, inputs: [...inputs] };
}

/** @param {string} root @returns {Record<string, string>} path from the repository's root -> absolute file */
export function textAssets(root) {
  const files = ASSETS.flatMap((pattern) => {
    const found = globSync(pattern, { cwd: root });
    if (found.length === 0) throw new Error(`no file matches ${pattern}, which the executable contains`);
    return found;
  }).sort();
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
    plugins: [directBuiltins, netlinkAsModules, ...late.map(lateBound)],
    metafile: true,
    // For scripts/stack.mjs; the bundle itself does not refer to it.
    sourcemap: 'external',
    sourcesContent: false,
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

/**
 * Two esbuild plugins that keep unused things out of the bundle, and so out of the snapshot that every start restores. Each can be left
 * out: the bundle then does the same and starts about 2 ms later.
 */

const require = createRequire(import.meta.url);

/**
 * Imports of built-in modules read what they import, once. esbuild's own bridge from CommonJS creates a getter function for every export
 * of the module, again in every file that imports it: 2,700 closures.
 * @type {import('esbuild').Plugin}
 */
export const directBuiltins = {
  name: 'plain built-in modules',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^[a-z]/ }, ({ path, kind }) =>
      isBuiltin(path) && kind === 'import-statement' ? { path, namespace: 'built-in' } : undefined,
    );
    onLoad({ filter: /./, namespace: 'built-in' }, ({ path }) => {
      const names = Object.keys(require(path)).filter((name) => name !== 'default');
      const exports = names.map(
        (name, index) =>
          `const $${index} = /* @__PURE__ */ read("${name}"); export { $${index} as ${name} };`,
      );
      const bridge = `const all = require("${path}"); const read = (name) => all[name]; export default all;`;
      return { contents: [bridge, ...exports].join('\n'), loader: 'js' };
    });
  },
};

/**
 * The package `netlink` is TypeScript compiled to CommonJS, which no bundler can thin out: 270 kB of encoders for every structure of
 * rtnetlink. Its files are turned back into the ES modules that they were; a file with anything unexpected in it stays CommonJS.
 * @type {import('esbuild').Plugin}
 */
export const netlinkAsModules = {
  name: 'netlink as ES modules',
  setup({ onLoad }) {
    onLoad(
      { filter: /\/netlink\/dist\/(structs|constants|rt\/(gen_structs|ifla|structs))\.js$/ },
      ({ path }) => {
        const contents = toModule(readFileSync(path, 'utf8'));
        return contents === undefined ? undefined : { contents, loader: 'js' };
      },
    );
  },
};

const PROLOGUE_END = 'Object.defineProperty(exports, "__esModule", { value: true });';
/**
 * From what the TypeScript compiler writes to what it was written from, in this order.
 * @type {readonly [RegExp, string][]}
 */
const REWRITES = [
  [/^(exports\.\w+ = )+void 0;$/gm, ''],
  [/^__exportStar\(require\("([^"]+)"\), exports\);$/gm, 'export * from "$1.js";'],
  [/^const (\w+) = __importStar\(require\("([^"]+)"\)\);$/gm, 'import * as $1 from "$2.js";'],
  [/^const (\w+) = require\("(\.[^"]+)"\);$/gm, 'import * as $1 from "$2.js";'],
  [/^const (\w+) = require\("([a-z_]+)"\);$/gm, 'import * as $1 from "node:$2";'],
  [/^var (\w+);\n\(function \(\1\) \{$/gm, 'export const $1 = /* @__PURE__ */ (function ($1) {'],
  [/^\}\)\((\w+) = exports\.\1 \|\| \(exports\.\1 = \{\}\)\);$/gm, 'return $1; })({});'],
  [/^exports\.(\w+) = \1;$/gm, 'export { $1 };'],
  [/^exports\.(\w+) = /gm, 'export const $1 = '],
  [/\bexports\.(\w+)/g, '$1'],
];

/** @param {string} source @returns {string | undefined} */
function toModule(source) {
  const start = source.indexOf(PROLOGUE_END);
  if (start < 0) return undefined;
  let code = source.slice(start + PROLOGUE_END.length);
  for (const [pattern, replacement] of REWRITES) code = code.replaceAll(pattern, replacement);
  return /\bexports\b|\brequire\(|\bmodule\b/.test(code.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, ''))
    ? undefined
    : code;
}
