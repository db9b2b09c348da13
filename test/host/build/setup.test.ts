import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { requireNode } from '../../../scripts/setup.mjs';
import { suite } from '../../support/suite.ts';

const test = suite('build: setup');

const SETUP = resolve(import.meta.dirname, '../../../scripts/setup.mjs');
const LOCKED = {
  '': {},
  'node_modules/a': { version: '1.0.0' },
  'node_modules/b': { version: '2.0.0', optional: true, os: ['aix'] },
};

/** A machine whose npm and apt-get only note how they were called; `here` are the programs it has. */
function machine(
  here: readonly string[],
  installed: object | null = LOCKED,
  npmInstalls: object = LOCKED,
): { root: string; bin: string; log: string } {
  const root = mkdtempSync('/run/machine-');
  chmodSync(root, 0o755);
  const bin = join(root, 'bin');
  const log = join(root, 'log');
  mkdirSync(bin);
  for (const name of here) {
    // apt-get fails while there is no package list, as on a fresh image; installing puts the program there.
    // npm notes what it has installed, as the real one does.
    const npm = `cp ${root}/npm-installs ${root}/node_modules/.package-lock.json`;
    const apt = `case "$*" in *update*) touch ${root}/lists;; *) [ -e ${root}/lists ] || exit 100; touch ${bin}/probe-tool; chmod +x ${bin}/probe-tool;; esac`;
    writeFileSync(
      join(bin, name),
      `#!/bin/sh\necho ${name} "$@" >> ${log}\n${{ 'apt-get': apt, npm }[name] ?? ''}\n`,
    );
    chmodSync(join(bin, name), 0o755);
  }
  writeFileSync(join(root, 'package-lock.json'), JSON.stringify({ packages: LOCKED }));
  writeFileSync(join(root, 'npm-installs'), JSON.stringify({ packages: npmInstalls }));
  mkdirSync(join(root, 'node_modules'));
  if (installed !== null) {
    writeFileSync(join(root, 'node_modules/.package-lock.json'), JSON.stringify({ packages: installed }));
  }
  return { root, bin, log };
}

const TOOL = { command: 'probe-tool', debian: 'probe-package', why: 'probes' };

function setUp(
  { root, bin, log }: ReturnType<typeof machine>,
  user?: number,
): { said: string; error: string; calls: string[] } {
  // The folders that setup looks into besides PATH hold this machine's own apt-get.
  const script = `
    const { setUp } = await import(${JSON.stringify(SETUP)});
    ${user === undefined ? '' : `process.setuid(${user});`}
    try { setUp(${JSON.stringify(root)}, [${JSON.stringify(TOOL)}]); } catch (error) { console.log('ERROR ' + error.constructor.name + ' ' + error.message); }`;
  const path = `${bin}:/usr/bin:/bin`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    env: { PATH: path },
    encoding: 'utf8',
  });
  const [said = '', error = ''] = `${stdout}${stderr}`.split('ERROR ');
  const calls = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [];
  return { said, error, calls };
}

test('where everything is there, nothing is run and nothing is said', () => {
  assert.equal(setUp(machine(['npm', 'apt-get', 'probe-tool'])), { said: '', error: '', calls: [] });
});

test('packages that are absent or of another version are installed as locked; optional ones for other systems do not count', () => {
  for (const installed of [null, { '': {}, 'node_modules/a': { version: '0.9.0' } }]) {
    const { said, calls } = setUp(machine(['npm', 'apt-get', 'probe-tool'], installed));
    assert.equal(calls, ['npm ci --no-audit --no-fund --ignore-scripts --loglevel=error']);
    assert.match(said, 'npm ci: ');
  }
});

test('a package that npm leaves out without a word is missed all the same', () => {
  const { error } = setUp(machine(['npm', 'apt-get', 'probe-tool'], null, { '': {} }));
  assert.match(
    error,
    'SetupError npm ci succeeded, but node_modules/a is not at version 1.0.0; check that the registry is reachable',
  );
});

test('a Node that is too old is refused at once', () => {
  for (const version of ['20.0.0', '26.10.0']) requireNode(version);
  assert.throws(() => requireNode('18.19.1'), /the build needs Node 20 or newer, this is 18\.19\.1 \(/);
});

test('a missing program is installed by apt, with its reason, after an update where the package lists are missing', () => {
  const { said, error, calls } = setUp(machine(['npm', 'apt-get']));
  assert.match(said, 'apt-get install probe-package: probe-tool probes');
  assert.is(error, '');
  const apt = 'apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=120';
  const install = `${apt} install probe-package`;
  assert.equal(calls, [install, `${apt} update`, install]);
});

test('without the rights to install, it says the command that root would give', () => {
  const { error, calls } = setUp(machine(['npm', 'apt-get']), 65534);
  assert.match(error, 'SetupError run this as root, or first: apt-get install probe-package');
  assert.equal(calls, []);
});

test('on a system without apt, it names what is missing, what for, and the packages', () => {
  for (const file of ['/usr/bin/apt-get']) if (existsSync(file)) hide(file);
  const { error } = setUp(machine(['npm']));
  assert.match(
    error,
    'SetupError missing here: probe-tool (probes). This command installs packages only with apt-get',
  );
  assert.match(error, 'probe-package');
});

test.run();

/** In this test file's own mount namespace. */
function hide(file: string): void {
  const blank = mkdtempSync('/run/blank-');
  writeFileSync(join(blank, 'file'), '', { mode: 0o644 });
  assert.is(spawnSync('mount', ['--bind', join(blank, 'file'), file]).status, 0);
}
