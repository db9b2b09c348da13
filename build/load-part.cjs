'use strict';

/** Evaluates a part of the executable outside the startup snapshot (bundle.mjs, LATE_PARTS). */
/** @type {Map<string, any>} */
const parts = new Map();

/** @param {string} name @param {NodeJS.Require} require that of the bundle @returns {any} what the part exports */
exports.loadPart = function loadPart(name, require) {
  const known = parts.get(name);
  if (known !== undefined) return known;
  const { Script } = process.getBuiltinModule('node:vm');
  const wrapped = `(function (exports, require, module) {${assetOf(`${name}.cjs`).toString('utf8')}\n})`;
  const script = new Script(wrapped, { filename: `${name}.cjs` });
  const module = { exports: {} };
  script.runInThisContext()(module.exports, require, module);
  // Read it after the evaluation: a part may replace `module.exports`.
  parts.set(name, module.exports);
  return module.exports;
};

/** Parts that plugins never use are compressed. @param {string} file @returns {Buffer} */
function assetOf(file) {
  const { getAssetKeys, getRawAsset } = process.getBuiltinModule('node:sea');
  if (!getAssetKeys().includes(`${file}.br`)) return Buffer.from(getRawAsset(file));
  const { brotliDecompressSync } = process.getBuiltinModule('node:zlib');
  return brotliDecompressSync(Buffer.from(getRawAsset(`${file}.br`)));
}
