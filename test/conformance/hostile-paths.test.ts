import * as assert from 'uvu/assert';
import { PLUGINS } from '../../plugins/index.ts';
import type { ProcessOutcome } from '../support/plugin.ts';
import { suite } from '../support/suite.ts';
import { sample } from '../support/thorough.ts';
import { call, changes, clean, prepareHost, sh, state, succeeds, withoutIds, type Name } from './calls.ts';
import { CASES } from './cases.ts';

/** Paths that are not what a plugin expects: in place of the network namespace, and in place of files that it reads. */
const test = suite('conformance: hostile paths', { limit: 180 });

test.before(() => {
  prepareHost();
  sh(
    'mkdir -p /run/odd/directory /etc/weft; touch /run/odd/file; mkfifo /run/odd/fifo; ln -s loop /run/odd/loop',
  );
  sh('mknod /run/odd/zero c 1 5; ip netns add dead && umount /run/netns/dead');
});

const NO_NAMESPACES = [
  '',
  '/run/odd/absent',
  '/run/odd/file',
  '/run/odd/file/ns',
  '/run/odd/directory',
  '/run/odd/fifo',
  '/run/odd/zero',
  '/run/odd/loop',
  '/run/netns/dead',
  '/proc/self/ns/mnt',
  '/proc/999999999/ns/net',
];

/** A file that a plugin reads, and what makes it read it; obstructions.test.ts has those that block a call the longest. */
interface ReadFile {
  readonly path: string;
  readonly change?: (name: Name) => { config?: Readonly<Record<string, unknown>>; args?: string };
}

const FILES: readonly ReadFile[] = [
  { path: '/var/run/cni/conformance/last_reserved_ip.0' },
  { path: '/var/run/cni/conformance/172.26.64.2' },
  { path: '/etc/resolv.conf' },
  { path: '/etc/passwd', change: (name) => ({ args: withNames(CASES[name].args) }) },
  { path: '/etc/services', change: (name) => ({ args: withNames(CASES[name].args) }) },
];

for (const { name } of PLUGINS) {
  test(`${name}: DEL removes everything when CNI_NETNS is no network namespace any more`, () => {
    const before = clean(name);
    for (const netns of sample(NO_NAMESPACES)) {
      sh('ip netns del pod; ip netns add pod && ip -n pod link set lo up');
      succeeds(call(name, 'ADD'));
      sh('ip netns del pod');
      if (netns === '') succeeds(call(name, 'DEL', { netns }));
      const { stdout, stderr } = succeeds(call(name, 'DEL', { netns }), netns);
      assert.equal([stdout, stderr], ['', ''], netns);
    }
    sh('ip netns add pod && ip -n pod link set lo up');
    // What is inside of the new namespace is no matter.
    const onHost = (lines: readonly string[]): string[] => lines.filter((line) => !line.startsWith('pod: '));
    assert.equal(changes(onHost(before), onHost(withoutIds(state()))), []);
  });

  for (const kind of ['p', 'c 1 5']) {
    test(`${name}: a ${kind === 'p' ? 'FIFO' : 'device without end'} in place of a file neither blocks ADD and DEL nor leaves anything`, () => {
      const before = clean(name);
      for (const { path, change } of sample(FILES)) {
        sh(
          `mkdir -p $(dirname ${path}); [ ! -e ${path} ] || cp ${path} /run/odd/kept; rm -f ${path}; mknod ${path} ${kind}`,
        );
        for (const command of ['ADD', 'DEL']) {
          const outcome = call(name, command, { ...change?.(name), patience: 15_000 });
          assert.ok(
            isAnswer(outcome),
            `${command} with ${path}: ${outcome.exitCode} ${outcome.stdout}${outcome.stderr}`,
          );
        }
        sh(`rm -f ${path}; [ ! -e /run/odd/kept ] || mv /run/odd/kept ${path}`);
        succeeds(call(name, 'DEL'), path);
      }
      assert.equal(changes(before, withoutIds(state())), []);
    });
  }
}

test.run();

/** Success, or an error about the file and not one that nothing was prepared for. */
function isAnswer({ exitCode, stdout }: ProcessOutcome): boolean {
  if (exitCode !== 1) return exitCode === 0;
  return (JSON.parse(stdout) as { code: number }).code !== 999;
}

/** Names instead of numbers, which are looked up in /etc/passwd and /etc/services. */
function withNames(args: string | undefined): string {
  return (args ?? '')
    .replace('"ProxyUserID":"101"', '"ProxyUserID":"daemon"')
    .replace('["9002"]', '["http"]');
}
