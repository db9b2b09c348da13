import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { settle } from './tree.mjs';

const ARCHITECTURES = /** @type {Record<string, string>} */ ({ x64: 'x86_64', arm64: 'aarch64' });

/**
 * @param {import('./tree.mjs').Release} release @param {string} tree of makeTree @param {string} work @param {string} folder
 * @returns {string} the package
 */
export function makeRpm({ root, version, maintainer, date }, tree, work, folder) {
  const staged = join(work, 'rpm-tree');
  cpSync(tree, staged, { recursive: true, verbatimSymlinks: true });
  mkdirSync(join(staged, 'usr/share/zsh/site-functions'), { recursive: true });
  // Where zsh looks on these distributions.
  renameSync(
    join(staged, 'usr/share/zsh/vendor-completions/_weft'),
    join(staged, 'usr/share/zsh/site-functions/_weft'),
  );
  cpSync(join(root, 'CHANGELOG.md'), join(staged, 'usr/share/doc/weft/CHANGELOG.md'));
  mkdirSync(join(staged, 'usr/share/licenses/weft'), { recursive: true });
  cpSync(join(root, 'LICENSE'), join(staged, 'usr/share/licenses/weft/LICENSE'));
  settle(staged, date);
  const spec = join(work, 'weft.spec');
  const day = date.toUTCString().replace(/^(\w+), (\d+) (\w+) (\d+).*/, '$1 $3 $2 $4');
  writeFileSync(
    spec,
    readFileSync(join(root, 'packaging/rpm/weft.spec'), 'utf8')
      .replaceAll('@VERSION@', version)
      .replaceAll('@MAINTAINER@', maintainer)
      .replaceAll('@TREE@', staged)
      .replaceAll('@DATE@', day),
  );
  const out = join(work, 'rpms');
  const architecture = ARCHITECTURES[process.arch] ?? process.arch;
  const defines = { _topdir: join(work, 'rpmbuild'), _rpmdir: out, _dbpath: join(work, 'rpmdb') };
  const options = Object.entries(defines).flatMap(([name, value]) => ['--define', `${name} ${value}`]);
  const env = { ...process.env, SOURCE_DATE_EPOCH: String(date.getTime() / 1000) };
  execFileSync('rpmbuild', ['-bb', '--quiet', '--target', `${architecture}-linux`, ...options, spec], {
    env,
    stdio: 'inherit',
  });
  const [name = ''] = readdirSync(join(out, architecture));
  cpSync(join(out, architecture, name), join(folder, name));
  return join(folder, name);
}
