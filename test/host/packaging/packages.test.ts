/** The packages around a small executable in the place of the large one: contents and metadata. `npm run package -- --test` installs real ones. */
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';

const test = suite('packages', { limit: 60 });
const root = resolve(import.meta.dirname, '../../..');
const [ONE, OTHER] = ['/opt/packages', '/opt/other-packages'];
const manifest = JSON.parse(readFileSync(`${root}/package.json`, 'utf8')) as Record<string, string>;
const version = manifest['version'] ?? '';

function output(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', cwd: '/opt', maxBuffer: 2 ** 26 });
}

function build(out: string, prefix: string, environment: Readonly<Record<string, string>>): Promise<unknown> {
  const script = `${prefix} exec "$0" ${root}/packaging/package.mjs --executable /usr/bin/true --out ${out}`;
  return promisify(execFile)('sh', ['-c', script, process.execPath], {
    env: { PATH: process.env['PATH'] ?? '', ...environment },
  });
}

test.before(async () => {
  mkdirSync('/opt/tmp');
  await Promise.all([
    build(ONE, '', {}),
    build(OTHER, 'umask 077;', { TZ: 'Asia/Tokyo', TMPDIR: '/opt/tmp', LANG: 'C.UTF-8' }),
  ]);
});

test('the same sources give the same bytes, whatever the umask, time zone and directory', () => {
  const sums = readFileSync(`${ONE}/SHA256SUMS`, 'utf8');
  assert.is([...sums.matchAll(/^[0-9a-f]{64} {2}\S+$/gm)].length, 4);
  assert.is(readFileSync(`${OTHER}/SHA256SUMS`, 'utf8'), sums);
  execFileSync('sha256sum', ['--check', '--quiet', 'SHA256SUMS'], { cwd: ONE });
});

const DATA = [
  'usr/lib/weft/weft',
  'usr/bin/weft',
  'usr/lib/systemd/system/weft-agent.service',
  'usr/share/man/man8/weft.8.gz',
  'usr/share/man/man5/weft.json.5.gz',
  'usr/share/bash-completion/completions/weft',
  'usr/share/doc/weft/THIRD-PARTY-NOTICES.txt.gz',
  'usr/share/doc/weft/examples/weft.nomad.hcl',
];

test('.deb: fields, files that root owns, no file below /opt', () => {
  const [deb = ''] = output('sh', '-c', `ls ${ONE}/*.deb`).split('\n');
  assert.equal(output('dpkg-deb', '-f', deb, 'Package', 'Version', 'Maintainer').trim().split('\n'), [
    'Package: weft',
    `Version: ${version}`,
    `Maintainer: ${manifest['author']}`,
  ]);
  const files = output('dpkg-deb', '-c', deb);
  const paths = [...files.matchAll(/ \.\/(\S*)/g)].map(([, path = '']) => path);
  const wanted = [...DATA, 'usr/share/zsh/vendor-completions/_weft', 'usr/share/doc/weft/changelog.gz'];
  assert.equal(
    wanted.filter((path) => !paths.includes(path)),
    [],
  );
  assert.equal(
    files.split('\n').filter((line) => line !== '' && !/^[-dl]\S+ root\/root /.test(line)),
    [],
  );
  assert.not.ok(paths.some((path) => /^(opt|etc|run)\//.test(path)));
});

test('.rpm: fields, files, scripts', () => {
  const [rpm = ''] = output('sh', '-c', `ls ${ONE}/*.rpm`).split('\n');
  const fields = output('rpm', '-qp', '--queryformat', '%{NAME}|%{VERSION}|%{LICENSE}|%{PACKAGER}', rpm);
  assert.is(fields, `weft|${version}|Apache-2.0|${manifest['author']}`);
  const paths = output('rpm', '-qpl', rpm).split('\n');
  const doc = (path: string): boolean => !path.startsWith('usr/share/doc/');
  assert.equal(
    [...DATA.filter(doc), 'usr/share/zsh/site-functions/_weft'].filter((path) => !paths.includes(`/${path}`)),
    [],
  );
  const scripts = output('rpm', '-qp', '--scripts', rpm);
  for (const command of ['/usr/bin/weft install --agent', '/usr/bin/weft uninstall'])
    assert.ok(scripts.includes(command), command);
});

test('tarball: one directory, with the executable and how to install it; SBOM: what the executable is built from', () => {
  const [archive = ''] = output('sh', '-c', `ls ${ONE}/*.tar.gz`).split('\n');
  const paths = output('tar', '-tzf', archive).split('\n').filter(Boolean);
  const [folder = ''] = paths;
  assert.ok(paths.every((path) => path.startsWith(folder)));
  for (const file of ['weft', 'INSTALL.txt', 'LICENSE', 'systemd/weft-agent.service', 'nomad/weft.nomad.hcl'])
    assert.ok(paths.includes(`${folder}${file}`), file);
  const bom = JSON.parse(readFileSync(`${ONE}/weft-${version}.cdx.json`, 'utf8')) as {
    components: { name: string }[];
  };
  const names = bom.components.map(({ name }) => name);
  const dependencies = Object.keys(manifest['dependencies'] ?? {});
  assert.ok(dependencies.length > 4);
  assert.equal(
    dependencies.filter((name) => !names.includes(name)),
    [],
  );
  assert.ok(names.some((name) => name.startsWith('node-linux-')));
});

test('manual page and completion have every sub-command and each of its options', () => {
  const [deb = ''] = output('sh', '-c', `ls ${ONE}/*.deb`).split('\n');
  output('dpkg-deb', '-x', deb, '/opt/unpacked');
  const page = gunzipSync(readFileSync('/opt/unpacked/usr/share/man/man8/weft.8.gz'))
    .toString()
    .replaceAll('\\-', '-');
  const zsh = readFileSync('/opt/unpacked/usr/share/zsh/vendor-completions/_weft', 'utf8');
  const help = output(executable('weft'), 'help');
  const names = [...help.matchAll(/^ {2}([a-z]\S*) {2,}\S/gm)].map(([, name = '']) => name);
  assert.ok(names.length > 12, help);
  assert.equal(complete('weft', ''), [...names, 'help'].sort());
  for (const name of names) {
    const own = output(executable('weft'), 'help', name);
    const options = [...own.matchAll(/^ +(?:-\w, )?(--[a-z][a-z0-9-]*)/gm)].map(([, option = '']) => option);
    assert.ok(page.includes(`.B ${name}\n`) && page.includes(`.SS weft ${name}\n`), name);
    assert.ok(new RegExp(`^ +'${name}:`, 'm').test(zsh), `zsh: ${name}`);
    const offered = complete('weft', name, '--');
    const inZsh = new RegExp(`^ +${name}\\) compadd -- (.*); _files`, 'm').exec(zsh)?.[1]?.split(' ') ?? [];
    for (const option of [...options, '--help']) {
      assert.ok(offered.includes(option), `bash: weft ${name} ${option}`);
      assert.ok(inZsh.includes(option), `zsh: weft ${name} ${option}`);
      assert.ok(option === '--help' || page.includes(option), `weft(8): ${name} ${option}`);
    }
  }
});

test.run();

/** What bash offers for the last one of these words. */
function complete(...words: string[]): string[] {
  const script = `. /opt/unpacked/usr/share/bash-completion/completions/weft
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _weft; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return output('bash', '-c', script, 'bash', ...words)
    .split('\n')
    .filter(Boolean)
    .sort();
}
