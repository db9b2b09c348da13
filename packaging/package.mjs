/**
 * dist/bin/weft -> dist/packages: .deb, .rpm, tarball, SBOM, SHA256SUMS. The same sources give the same bytes.
 * usage: node packaging/package.mjs [--executable FILE] [--out DIR]
 * --executable   what the packages contain; its help is not asked for (default: dist/bin/weft)
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { makeDeb } from './build/deb.mjs';
import { makeRpm } from './build/rpm.mjs';
import { sbom } from './build/sbom.mjs';
import { makeTree, settle } from './build/tree.mjs';

const root = resolve(import.meta.dirname, '..');
const { values } = parseArgs({ options: { executable: { type: 'string' }, out: { type: 'string' } } });
const weft = join(root, 'dist/bin/weft');
const folder = resolve(values.out ?? join(root, 'dist/packages'));
const { version, author: maintainer } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const date = releaseDate();
const release = {
  root,
  version,
  maintainer,
  date,
  executable: resolve(values.executable ?? weft),
  commands: subCommands(),
};

rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
const work = mkdtempSync(join(tmpdir(), 'weft-package-'));
try {
  const tree = join(work, 'tree');
  mkdirSync(tree);
  makeTree(release, tree);
  settle(tree, date);
  makeDeb(release, tree, work, folder);
  makeRpm(release, tree, work, folder);
  makeTarball(tree);
  writeFileSync(join(folder, `weft-${version}.cdx.json`), sbom(root, date));
  const files = readdirSync(folder).sort();
  const sums = files.map((name) => `${sha256(join(folder, name))}  ${name}\n`);
  writeFileSync(join(folder, 'SHA256SUMS'), sums.join(''));
  for (const name of files)
    process.stdout.write(
      `${join(folder, name)}  ${(statSync(join(folder, name)).size / 1e6).toFixed(1)} MB\n`,
    );
} finally {
  rmSync(work, { recursive: true });
}

/** For hosts without packages, and for Nomad's artifact: the executable, which installs itself. @param {string} tree */
function makeTarball(tree) {
  const name = `weft-${version}-linux-${process.arch}`;
  const staged = join(work, name);
  mkdirSync(staged);
  cpSync(join(tree, 'usr/lib/weft/weft'), join(staged, 'weft'));
  for (const file of ['LICENSE', 'README.md', 'CHANGELOG.md', 'dist/THIRD-PARTY-NOTICES.txt'])
    cpSync(join(root, file), join(staged, basename(file)));
  cpSync(join(root, 'packaging/systemd'), join(staged, 'systemd'), { recursive: true });
  cpSync(join(root, 'packaging/prometheus'), join(staged, 'prometheus'), { recursive: true });
  cpSync(join(root, 'packaging/nomad'), join(staged, 'nomad'), { recursive: true });
  cpSync(join(tree, 'usr/share/man'), join(staged, 'man'), { recursive: true });
  mkdirSync(join(staged, 'completion'));
  cpSync(join(tree, 'usr/share/bash-completion/completions/weft'), join(staged, 'completion/weft.bash'));
  cpSync(join(tree, 'usr/share/zsh/vendor-completions/_weft'), join(staged, 'completion/_weft'));
  writeFileSync(
    join(staged, 'INSTALL.txt'),
    'As root, while allocations run:\n\n    ./weft install            # or: ./weft install --agent\n    systemctl reload nomad\n\nUndo: weft install --rollback. Remove: weft uninstall.\n',
  );
  settle(staged, date);
  const options = [
    '--sort=name',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '--mode=u=rwX,go=rX',
    '--format=gnu',
  ];
  const archive = join(work, `${name}.tar`);
  execFileSync('tar', [...options, `--mtime=@${date.getTime() / 1000}`, '-C', work, '-cf', archive, name]);
  execFileSync('gzip', ['-6n', archive]);
  cpSync(`${archive}.gz`, join(folder, `${name}.tar.gz`));
}

/** What `weft help` lists, with the help of each. @returns {import('./build/manual.mjs').SubCommand[]} */
function subCommands() {
  const lines = help('help').matchAll(/^ {2}([a-z]\S*) {2,}(\S.*)$/gm);
  return [...lines].map(([, name = '', summary = '']) => ({ name, summary, help: help(name, '--help') }));
}

/** @param {string[]} args */
function help(...args) {
  return execFileSync(weft, args, { encoding: 'utf8', env: {} });
}

/** SOURCE_DATE_EPOCH; otherwise the time of the commit. @returns {Date} */
function releaseDate() {
  const epoch = process.env['SOURCE_DATE_EPOCH'];
  const { stdout } = spawnSync('git', ['-C', root, 'log', '-1', '--format=%ct'], { encoding: 'utf8' });
  const seconds = Number(epoch ?? stdout);
  if (!Number.isInteger(seconds) || seconds <= 0)
    throw new Error('no commit to take the time from: set SOURCE_DATE_EPOCH, seconds since 1970');
  return new Date(seconds * 1000);
}

/** @param {string} file */
function sha256(file) {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}
