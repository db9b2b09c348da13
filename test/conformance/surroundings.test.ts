import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { SUITE_VERSION } from '../../shared/cni/versions.ts';
import { executable, PLUGIN_NAMES, type PluginName } from '../support/executables.ts';
import { variables } from '../support/plugin.ts';
import { suite } from '../support/suite.ts';

/** Plugins inherit the whole environment of an agent, and must not care (contracts of Nomad's fingerprint and of its calls). */
const test = suite('conformance: surroundings', { limit: 100 });

const UNREAD = {
  cniVersion: '1.0.0',
  name: 'unread',
  type: 'bridge',
  bridge: 'unread0',
  ipam: { type: 'host-local', dataDir: '/run/unread', ranges: [[{ subnet: '10.97.0.0/24' }]] },
};

/** What go-version's NewSemver accepts; Nomad keeps the first word of stdout and stderr that matches. */
const SEMVER =
  /^v?([0-9]+(\.[0-9]+)*?)(-([0-9]+[0-9A-Za-z\-~]*(\.[0-9A-Za-z\-~]+)*)|(-([A-Za-z\-~]+[0-9A-Za-z\-~]*(\.[0-9A-Za-z\-~]+)*)))?(\+([0-9A-Za-z\-~]+(\.[0-9A-Za-z\-~]+)*))??$/;

const ENVIRONMENTS: Readonly<Record<string, Record<string, string>>> = {
  'an empty environment': {},
  'an environment made for other Node programs': {
    NODE_OPTIONS: '--require /run/nowhere/x.js --max-old-space-size=1',
    NODE_PATH: '/run/nowhere',
    NODE_EXTRA_CA_CERTS: '/run/nowhere',
    NODE_DEBUG: 'fs,child_process',
    FORCE_COLOR: '3',
    HTTP_PROXY: 'http://nowhere:1',
  },
  'a bare systemd unit': { PATH: '/usr/bin', LANG: 'tr_TR.UTF-8', TZ: 'Nowhere/Else', UMASK: '777' },
};

/** The shims for development run the sources by a Node that reads all of this itself. */
const isProgram = (name: PluginName): boolean => {
  const file = openSync(executable(name), 'r');
  const magic = Buffer.alloc(4);
  readSync(file, magic);
  closeSync(file);
  return magic.toString('latin1') === '\x7fELF';
};

for (const name of PLUGIN_NAMES) {
  for (const [title, env] of Object.entries(ENVIRONMENTS)) {
    const full = `${name}: Nomad's fingerprint finds the version in ${title}, in under 3 s`;
    if (!isProgram(name)) {
      test.skip(full, 'the executables under test are development shims');
      continue;
    }
    test(full, () => {
      const { status, stdout, stderr } = spawnSync(executable(name), [], {
        env,
        encoding: 'utf8',
        timeout: 3000,
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      assert.is(status, 0);
      for (const text of [stdout + stderr, stderr + stdout]) {
        assert.is(
          text.split(/\s+/).find((word) => SEMVER.test(word)),
          `v${SUITE_VERSION}`,
        );
      }
    });
  }

  test(`${name}: a closed stdin is an empty one, and closed stdout and stderr do no harm`, () => {
    const env = {
      ...variables({ id: 'c1', netns: '/run/netns/none' }),
      CNI_COMMAND: 'DEL',
      PATH: '/usr/bin:/bin',
    };
    const run = (redirections: string): ReturnType<typeof spawnSync> =>
      spawnSync('sh', ['-c', `exec "$0" ${redirections}`, executable(name)], {
        env,
        encoding: 'utf8',
        timeout: 20_000,
      });
    const empty = run('<&-');
    assert.is(empty.status, 1);
    assert.is((JSON.parse(String(empty.stdout)) as { code: number }).code, 6);
    assert.is(run('<&- >&- 2>&-').status, 1);
    assert.is(run('<&- >/dev/full').status, 1);
  });

  test(`${name}: a working folder that was deleted, a umask that allows nothing`, () => {
    const script = 'd=$(mktemp -d) && cd $d && rmdir $d && umask 777 && exec "$0"';
    const { status, stderr } = spawnSync('sh', ['-c', script, executable(name)], {
      env: { PATH: '/usr/bin:/bin' },
      encoding: 'utf8',
    });
    assert.is(status, 0);
    assert.match(stderr, `CNI ${name} plugin v${SUITE_VERSION}`);
  });
}

for (const kind of ['pipe', 'socket']) {
  test(`a runtime that never closes its ${kind} gets an error after ten seconds`, async () => {
    const env = {
      ...variables({ id: 'c1', netns: '/run/netns/none' }),
      CNI_COMMAND: 'DEL',
      PATH: '/usr/bin:/bin',
    };
    const began = '{"cniVersion":"1.0.0"';
    // What node gives a child is a socket; the shell makes a pipe of it.
    const pipe = ['-c', `(printf '${began}'; exec sleep 30) | "$0"`, executable('loopback')];
    const child =
      kind === 'pipe'
        ? spawn('sh', pipe, { env, detached: true })
        : spawn(executable('loopback'), { env, detached: true });
    if (kind === 'socket') child.stdin.write(began);
    let stdout = '';
    const answered = new Promise((resolve) =>
      child.stdout.on('data', (chunk: Buffer) => resolve((stdout += chunk.toString()))),
    );
    await answered;
    process.kill(-Number(child.pid), 'SIGKILL');
    const { code, msg } = JSON.parse(stdout) as { code: number; msg: string };
    assert.is(code, 5);
    assert.match(msg, 'timed out after 10 s waiting for the end of stdin');
  });
}

test('a configuration without an end is refused before it fills the memory', () => {
  const env = { ...variables({ id: 'c1', netns: '/run/netns/none' }), CNI_COMMAND: 'DEL' };
  const endless = openSync('/dev/zero', 'r');
  const { status, stdout } = spawnSync(executable('loopback'), {
    env,
    stdio: [endless, 'pipe', 'pipe'],
    encoding: 'utf8',
  });
  closeSync(endless);
  assert.is(status, 1);
  const { code, msg } = JSON.parse(stdout) as { code: number; msg: string };
  assert.is(code, 7);
  assert.is(msg, 'the configuration on stdin is larger than 4 MiB');
});

for (const name of ['LC_ALL', 'LC_MESSAGES', 'LC_CTYPE', 'LANG', 'LANGUAGE']) {
  // A language of more than eleven letters crashes V8 before any code of ours runs (docs/internals/packaging.md); the launcher passes none on.
  test(`an unknown locale or a path in ${name} does no harm`, () => {
    for (const value of [
      '/etc/passwd',
      '../../x',
      'tr_TR.UTF-8',
      'xx_NOWHERE.none',
      `de_DE@${'x'.repeat(100)}`,
    ]) {
      const env = { [name]: value, CNI_COMMAND: 'VERSION' };
      const { status, stdout } = spawnSync(executable('loopback'), { env, encoding: 'utf8', input: '{}' });
      assert.is(status, 0, value.slice(0, 20));
      assert.match(stdout, 'supportedVersions');
    }
  });
}

test('an answer larger than a pipe whose reader does not read ends the call after ten seconds', () => {
  const prevResult = { cniVersion: '1.0.0', unknown: 'x'.repeat(200_000) };
  const config = { cniVersion: '1.0.0', name: 'n', type: 'loopback', prevResult };
  const script = 'ip netns add full; { "$0" < /run/full.json; echo "exit $?" >&2; } | sleep 16';
  writeFileSync('/run/full.json', JSON.stringify(config));
  const { stderr } = spawnSync('sh', ['-c', script, executable('loopback')], {
    env: {
      ...variables({ id: 'c1', netns: '/run/netns/full' }),
      CNI_COMMAND: 'ADD',
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    },
    encoding: 'utf8',
  });
  assert.match(
    stderr,
    /cannot report the result: timed out after (9|10)(\.\d)? s writing to stdout; is the runtime reading it\?\nexit 1\n$/,
  );
});

for (const out of ['/dev/full', 'a pipe without a reader']) {
  test(`an ADD that cannot print its result on ${out} leaves nothing`, () => {
    const script = `
      ip netns add unread && rm -rf /run/unread
      printf '%s' "$CONFIG" | ${out === '/dev/full' ? '"$0" >/dev/full' : '{ trap "" PIPE; sleep 0.3; "$0"; } | true'}
      ip -o link | grep -c veth; ip -n unread -o link | grep -c eth0; ls /run/unread/unread | grep -c 10.97; ip netns del unread`;
    const { stdout, stderr } = spawnSync('sh', ['-c', script, executable('bridge')], {
      env: {
        ...variables({ id: 'c1', netns: '/run/netns/unread' }),
        CNI_COMMAND: 'ADD',
        CONFIG: JSON.stringify(UNREAD),
        PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      },
      encoding: 'utf8',
    });
    assert.equal(stdout.trim().split('\n'), ['0', '0', '0'], stderr);
    assert.match(
      stderr,
      /bridge: cannot report the result: cannot write to stdout: (E|Broken pipe|No space)/,
    );
  });
}

test('a configuration larger than a pipe arrives whole', () => {
  const many = Array.from({ length: 20_000 }, (_, at) => ({ containerID: `c${at}`, ifname: 'eth0' }));
  const config = { cniVersion: '1.1.0', name: 'n', type: 'loopback', 'cni.dev/valid-attachments': many };
  execFileSync(executable('loopback'), [], {
    env: { CNI_COMMAND: 'GC', CNI_PATH: '/x', PATH: '/usr/bin:/bin' },
    input: JSON.stringify(config),
  });
});

test.run();
