import {
  chmodSync,
  copyFileSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { bashCompletion, zshCompletion } from './completion.mjs';
import { configurationPage, weftPage } from './manual.mjs';

/**
 * The files that .deb and .rpm install. /opt/cni/bin is not among them: the package's scripts run `weft install --agent`, which keeps the
 * plugins that are there, and `weft uninstall`, which puts them back.
 *
 * @typedef {object} Release
 * @property {string} root        the repository
 * @property {string} version
 * @property {string} maintainer  author in package.json
 * @property {Date} date          every time in the packages
 * @property {string} executable
 * @property {readonly import('./manual.mjs').SubCommand[]} commands
 */

/** @param {Release} release @param {string} tree an empty directory */
export function makeTree({ root, version, date, executable, commands }, tree) {
  const day = date.toISOString().slice(0, 10);
  /** @param {string} path @param {string | Buffer} content */
  const write = (path, content) => {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    writeFileSync(join(tree, path), content);
  };
  /** @param {string} path */
  const read = (path) => readFileSync(join(root, path), 'utf8');
  mkdirSync(join(tree, 'usr/lib/weft'), { recursive: true });
  copyFileSync(executable, join(tree, 'usr/lib/weft/weft'));
  chmodSync(join(tree, 'usr/lib/weft/weft'), 0o755);
  mkdirSync(join(tree, 'usr/bin'));
  symlinkSync('../lib/weft/weft', join(tree, 'usr/bin/weft'));
  write(
    'usr/lib/systemd/system/weft-agent.service',
    read('packaging/systemd/weft-agent.service').replace('/usr/local/bin/weft', '/usr/bin/weft'),
  );
  write('usr/share/man/man8/weft.8.gz', compressed(weftPage(commands, version, day)));
  write(
    'usr/share/man/man5/weft.json.5.gz',
    compressed(configurationPage(read('docs/reference/configuration.md'), version, day)),
  );
  write('usr/share/bash-completion/completions/weft', bashCompletion(commands));
  write('usr/share/zsh/vendor-completions/_weft', zshCompletion(commands));
  write('usr/share/doc/weft/THIRD-PARTY-NOTICES.txt.gz', compressed(read('dist/THIRD-PARTY-NOTICES.txt')));
  write('usr/share/doc/weft/README.md.gz', compressed(read('README.md')));
  for (const job of ['weft.nomad.hcl', 'weft-agent.nomad.hcl'])
    write(`usr/share/doc/weft/examples/${job}`, read(`packaging/nomad/${job}`));
  for (const file of ['alerts.yml', 'dashboard.json'])
    write(`usr/share/doc/weft/examples/prometheus/${file}`, read(`packaging/prometheus/${file}`));
}

/** The same bytes at any time: no name and no time inside. @param {string} text */
export function compressed(text) {
  return gzipSync(text, { level: 9 });
}

/** Gives everything the release's time, and files and directories the same modes whatever the umask. @param {string} path @param {Date} date */
export function settle(path, date) {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const file = join(path, entry.name);
    if (entry.isDirectory()) settle(file, date);
    if (entry.isFile()) chmodSync(file, (statSync(file).mode & 0o100) === 0 ? 0o644 : 0o755);
    lutimesSync(file, date, date);
  }
  chmodSync(path, 0o755);
  lutimesSync(path, date, date);
}

/** @param {string} path @param {string} [below] @returns {string[]} regular files, relative */
export function filesIn(path, below = '') {
  return readdirSync(join(path, below), { withFileTypes: true })
    .flatMap((entry) =>
      entry.isDirectory()
        ? filesIn(path, join(below, entry.name))
        : entry.isFile()
          ? [join(below, entry.name)]
          : [],
    )
    .sort();
}
