/**
 * Third-party notices: every npm package whose code is in the bundles, and Node with what it contains (V8, OpenSSL, ICU, ...).
 * The list comes from the bundler, so that it names exactly what is shipped. And the C library that the launcher is linked with.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

/**
 * @param {string} root the repository
 * @param {readonly string[]} inputs files of the bundles, relative to the root
 * @param {string} node the Node binary of the npm package node-linux-<arch>
 * @param {import('./launcher.mjs').Launcher} [launcher]
 * @returns {string} name, version, license and license text of each
 */
export function thirdPartyNotices(root, inputs, node, launcher) {
  const packages = [...new Set(inputs.flatMap(packageOf))].sort();
  const sections = packages.map((name) => packageNotice(join(root, 'node_modules', name), name));
  const nodePackage = resolve(dirname(node), '..');
  const { version } = manifestOf(nodePackage);
  sections.push(section('Node.js', version, 'MIT and others', licenseOf(nodePackage)));
  if (launcher !== undefined && existsSync(launcher.copyright))
    sections.push(
      section(launcher.library, '', 'see below', readFileSync(launcher.copyright, 'utf8').trim()),
    );
  return `Weft contains the following third-party software.\n\n${sections.join('\n')}`;
}

/** `node_modules/@scope/name/file.js` -> `@scope/name`. @param {string} input @returns {string[]} */
function packageOf(input) {
  const [, path] = /(?:^|\/)node_modules\/(?!.*node_modules\/)(.*)$/.exec(input) ?? [];
  if (path === undefined) return [];
  const [scope = '', name = ''] = path.split('/');
  return [scope.startsWith('@') ? `${scope}/${name}` : scope];
}

/** @param {string} folder @param {string} name */
function packageNotice(folder, name) {
  const { version, license } = manifestOf(folder);
  return section(name, version, license ?? 'see below', licenseOf(folder));
}

/** @param {string} folder @returns {{ version: string, license?: string }} */
function manifestOf(folder) {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
}

/** @param {string} folder */
function licenseOf(folder) {
  const file = readdirSync(folder).find((name) => /^(licen[cs]e|copying)/i.test(name));
  return file === undefined ? '' : readFileSync(join(folder, file), 'utf8').trim();
}

/** @param {string} name @param {string} version @param {string} license @param {string} text */
function section(name, version, license, text) {
  return `${'='.repeat(80)}\n${[name, version].filter(Boolean).join(' ')} (${license})\n\n${text}\n`;
}
