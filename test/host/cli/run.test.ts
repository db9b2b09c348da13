import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { binDir, executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';

/** `weft run` as a person calls it: the executable, a list of the loopback plugin alone, and what it says about mistakes. */
const test = suite('weft run', { limit: 60 });

interface Outcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function weft(...args: string[]): Outcome {
  const { status, stdout, stderr } = spawnSync(executable('weft'), args, {
    encoding: 'utf8',
    timeout: 50_000,
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
  });
  return { exitCode: status, stdout, stderr };
}

const LIST = '/opt/lo.conflist';
const SINGLE = '/opt/lo.conf';
const CACHE = '/opt/cache';
const run = (verb: string, ...args: string[]): Outcome =>
  weft('run', verb, '--conflist', LIST, '--bin-dir', binDir, '--cache-dir', CACHE, ...args);

test.before(() => {
  execFileSync('ip', ['netns', 'add', 'one']);
  writeFileSync(LIST, JSON.stringify({ cniVersion: '1.1.0', name: 'lo', plugins: [{ type: 'loopback' }] }));
  writeFileSync(SINGLE, JSON.stringify({ cniVersion: '0.4.0', name: 'single', type: 'loopback' }));
});

test('add prints the result; check, del and del again are quiet', () => {
  const added = run('add', '--netns', 'one', '--id', 'c1', '--ifname', 'lo');
  assert.equal([added.exitCode, added.stderr], [0, '']);
  const { interfaces } = JSON.parse(added.stdout) as { interfaces: { name: string; sandbox: string }[] };
  assert.equal(
    interfaces.map(({ name, sandbox }) => [name, sandbox]),
    [['lo', '/var/run/netns/one']],
  );
  assert.match(execFileSync('ip', ['-n', 'one', 'link', 'show', 'lo']).toString(), 'UP');
  assert.ok(existsSync(`${CACHE}/results/lo-c1-lo`));
  // The namespace and everything else that add was given comes from the cached result.
  assert.equal(run('check', '--id', 'c1', '--ifname', 'lo'), { exitCode: 0, stdout: '', stderr: '' });
  for (let times = 0; times < 2; times += 1) {
    assert.equal(run('del', '--id', 'c1', '--ifname', 'lo'), { exitCode: 0, stdout: '', stderr: '' });
  }
  assert.not(existsSync(`${CACHE}/results/lo-c1-lo`));
});

test('a lone plugin configuration works the same', () => {
  const { exitCode, stdout } = weft(
    'run',
    'add',
    '--conflist',
    SINGLE,
    '--bin-dir',
    binDir,
    '--cache-dir',
    CACHE,
    '--netns',
    '/run/netns/one',
    '--id',
    'c2',
    '--ifname',
    'lo',
  );
  assert.is(exitCode, 0);
  assert.is((JSON.parse(stdout) as { cniVersion: string }).cniVersion, '0.4.0');
});

test('status calls the plugins; gc needs the valid attachments', () => {
  assert.equal(run('status'), { exitCode: 0, stdout: '', stderr: '' });
  assert.is(run('gc').exitCode, 2);
  assert.match(run('gc').stderr, '--valid-present');
  run('add', '--netns', 'one', '--id', 'gone', '--ifname', 'lo');
  assert.equal(run('gc', '--valid-present'), { exitCode: 0, stdout: '', stderr: '' });
  assert.ok(existsSync(`${CACHE}/results/lo-gone-lo`));
  assert.equal(run('gc', '--valid', 'other/eth0'), { exitCode: 0, stdout: '', stderr: '' });
  assert.not(existsSync(`${CACHE}/results/lo-gone-lo`));
});

test('installed alone, it finds the plugins where Nomad has them, and takes no other program for one', () => {
  const alone = '/opt/alone/weft';
  execFileSync('sh', [
    '-ec',
    `mkdir -p /opt/alone /opt/cni/bin; touch ${alone} /opt/alone/loopback; chmod +x /opt/alone/loopback
    mount --bind ${executable('weft')} ${alone}; ln -sf ${executable('loopback')} /opt/cni/bin/`,
  ]);
  const status = (): { status: number | null; stderr: string } =>
    spawnSync(alone, ['run', 'status', '--conflist', LIST], { env: {}, encoding: 'utf8' });
  assert.is(status().status, 0, status().stderr);
  execFileSync('rm', ['-r', '/opt/cni']);
  assert.match(status().stderr, 'failed to find plugin "loopback" in path [/opt/cni/bin]');
});

test('a failing plugin: its words on stderr, nothing on stdout, exit code 1', () => {
  const { exitCode, stdout, stderr } = run('add', '--netns', 'nowhere', '--id', 'c1', '--ifname', 'lo');
  assert.equal([exitCode, stdout], [1, '']);
  assert.match(stderr, /^weft run: plugin type="loopback" failed \(add\): .*\/var\/run\/netns\/nowhere/);
});

const mistakes: [args: string[], message: RegExp][] = [
  [['run'], /verb must be one of add, check, del, gc, status, got none/],
  [['run', 'ADD', '--conflist', LIST], /verb must be one of .* got ADD/],
  [['run', 'toString', '--conflist', LIST], /verb must be one of/],
  [['run', 'add'], /--conflist is required/],
  [['run', 'add', '--conflist', LIST], /--id is required/],
  [['run', 'add', '--conflist', LIST, '--id', 'x'], /--netns is required for add; .*ip netns add NAME/],
  [['run', 'add', 'more', '--conflist', LIST], /unexpected argument "more"/],
  [['run', 'add', '--conflist', LIST, '--id', 'x', '--port', '99999'], /1 to 65535, got 99999/],
  [['run', 'add', '--conflist', LIST, '--id', 'x', '--cni-args', 'novalue'], /KEY=VALUE/],
  [['run', 'add', '--nonsense'], /--nonsense/],
  [['nonsense'], /unknown sub-command "nonsense"/],
  [['statsu'], /unknown sub-command "statsu"; did you mean "weft status"\?/],
  [['agnet'], /did you mean "weft agent"\?/],
  [['version', 'now'], /Unexpected argument 'now'/],
  [['leases', '--data-dir', '/nowhere'], /--data-dir: \/nowhere does not exist/],
  [['help', 'lease'], /did you mean "weft help leases"\?/],
  [['help', 'nonsense'], /unknown topic "nonsense"/],
  [['countdash', '--port', '0'], /--port must be 1 to 65535/],
];
for (const [args, message] of mistakes) {
  test(`wrong usage: weft ${args.join(' ')}`, () => {
    const { exitCode, stdout, stderr } = weft(...args);
    assert.equal([exitCode, stdout], [2, '']);
    assert.match(stderr, message);
  });
}

test('a list that is none: the key, the rule, the value', () => {
  writeFileSync('/opt/bad.conflist', '{"name":"a/b","plugins":[{"type":""}]}');
  const { exitCode, stderr } = weft('run', 'status', '--conflist', '/opt/bad.conflist');
  assert.is(exitCode, 1);
  assert.match(stderr, /invalid \/opt\/bad\.conflist: .*"name".*"a\/b".*plugins\[0\]\.type/);
});

test('help and version', () => {
  for (const args of [[], ['help'], ['--help']]) {
    const { exitCode, stdout } = weft(...args);
    assert.is(exitCode, 0);
    assert.match(stdout, /countdash .*\n.*run /);
    assert.not.match(stdout, 'countdash-child');
    const names = [...stdout.matchAll(/^ {2}(\S+) {2}/gm)].map(([, name]) => name);
    assert.is(new Set(names).size, names.length, 'each sub-command once');
    for (const name of ['countdash', 'run', 'agent', 'status', 'leases', 'show'])
      assert.ok(names.includes(name));
  }
  assert.match(weft('version').stdout, /^weft \d+\.\d+\.\d+\n$/);
  assert.match(weft('run', '--help').stdout, /usage: weft run <verb>/);
  assert.match(weft('help', 'countdash').stdout, /usage: weft countdash/);
});

test.run();
