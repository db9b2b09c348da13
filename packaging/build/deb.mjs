import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { compressed, filesIn, settle } from './tree.mjs';

const ARCHITECTURES = /** @type {Record<string, string>} */ ({ x64: 'amd64', arm64: 'arm64' });
const SCRIPTS = ['postinst', 'prerm', 'postrm'];

/**
 * @param {import('./tree.mjs').Release} release @param {string} tree of makeTree @param {string} work @param {string} folder
 * @param {string} [compression] of dpkg-deb: xz, which also Debian 11 reads
 * @returns {string} the package
 */
export function makeDeb({ root, version, maintainer, date }, tree, work, folder, compression = 'xz') {
  const staged = join(work, 'deb');
  cpSync(tree, staged, { recursive: true, verbatimSymlinks: true });
  const doc = join(staged, 'usr/share/doc/weft');
  writeFileSync(join(doc, 'copyright'), readFileSync(join(root, 'packaging/debian/copyright')));
  writeFileSync(join(doc, 'changelog.gz'), compressed(changelog(version, maintainer, date)));
  writeFileSync(join(doc, 'NEWS.md.gz'), compressed(readFileSync(join(root, 'CHANGELOG.md'), 'utf8')));
  mkdirSync(join(staged, 'usr/share/lintian/overrides'), { recursive: true });
  const overrides = readFileSync(join(root, 'packaging/debian/lintian-overrides'));
  writeFileSync(join(staged, 'usr/share/lintian/overrides/weft'), overrides);
  const files = filesIn(staged);
  const control = join(staged, 'DEBIAN');
  mkdirSync(control);
  for (const name of SCRIPTS)
    writeFileSync(join(control, name), readFileSync(join(root, 'packaging/debian', name)), { mode: 0o755 });
  const sizes = files.map((file) => Math.ceil(readFileSync(join(staged, file)).length / 1024));
  const architecture = ARCHITECTURES[process.arch] ?? process.arch;
  const fields = readFileSync(join(root, 'packaging/debian/control'), 'utf8')
    .replace('VERSION', version)
    .replace('ARCHITECTURE', architecture)
    .replace('MAINTAINER', maintainer)
    .replace('SIZE', String(sizes.reduce((sum, size) => sum + size, 0)));
  writeFileSync(join(control, 'control'), fields);
  writeFileSync(
    join(control, 'md5sums'),
    files.map((file) => `${md5(join(staged, file))}  ${file}\n`).join(''),
  );
  settle(staged, date);
  const file = join(folder, `weft_${version}_${architecture}.deb`);
  // One thread: with several, xz cuts the file into other blocks.
  const options = [
    `-Z${compression}`,
    '-z6',
    '--threads-max=1',
    '--root-owner-group',
    '--build',
    staged,
    file,
  ];
  const env = { ...process.env, SOURCE_DATE_EPOCH: String(date.getTime() / 1000) };
  execFileSync('dpkg-deb', options, { env, stdio: ['ignore', 'ignore', 'inherit'] });
  return file;
}

/** @param {string} version @param {string} maintainer @param {Date} date */
function changelog(version, maintainer, date) {
  const time = date.toUTCString().replace('GMT', '+0000');
  return `weft (${version}) unstable; urgency=medium\n\n  * Release ${version}: /usr/share/doc/weft/NEWS.md.gz.\n\n -- ${maintainer}  ${time}\n`;
}

/** @param {string} file */
function md5(file) {
  return createHash('md5').update(readFileSync(file)).digest('hex');
}
