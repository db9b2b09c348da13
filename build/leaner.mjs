/**
 * Two esbuild plugins that keep unused things out of the bundle, and so out of the snapshot that every start restores. Each can be left
 * out: the bundle then does the same and starts about 2 ms later.
 */
import { readFileSync } from 'node:fs';
import { createRequire, isBuiltin } from 'node:module';

const require = createRequire(import.meta.url);

/**
 * Imports of built-in modules read what they import, once. esbuild's own bridge from CommonJS creates a getter function for every export
 * of the module, again in every file that imports it: 2,700 closures.
 * @type {import('esbuild').Plugin}
 */
export const plainBuiltins = {
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
