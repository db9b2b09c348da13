/** The agent's events in journald, which runs on the test's host. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, fstatSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import * as assert from 'uvu/assert';
import { logTo } from '../../../agent/log.ts';
import { NodeAgent, WEFT } from '../../support/node-agent.ts';
import { suite } from '../../support/suite.ts';
import { useVariant } from '../../support/variants.ts';
import { sh } from '../../e2e/support/client-host.ts';
import { addContainer, networkList } from './repair/scene.ts';

const test = suite('events in journald', { limit: 40 });
const STARTER = '/run/start-agent';
const JOURNALD = '/usr/lib/systemd/systemd-journald';
let journald: ChildProcess | undefined;

type Entry = Record<string, string | undefined>;

function entries(...matches: string[]): Entry[] {
  const text = execFileSync('journalctl', ['--no-pager', '-o', 'json', ...matches], { encoding: 'utf8' });
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Entry);
}

async function until<T>(find: () => T | undefined): Promise<T> {
  for (const end = Date.now() + 15_000; Date.now() < end;) {
    const found = find();
    if (found !== undefined) return found;
    await pause(100);
  }
  throw new Error(`not in the journal: ${JSON.stringify(entries())}`);
}

if (!existsSync(JOURNALD)) test.skip('all of it', `this machine has no ${JOURNALD}`);
else {
  test.before(async () => {
    useVariant('nft');
    mkdirSync('/run/systemd/journal', { recursive: true });
    mkdirSync('/run/log/journal', { recursive: true });
    writeFileSync('/etc/machine-id', '0123456789abcdef0123456789abcdef\n');
    // It asks for the control group of its host's first process.
    sh('mount -t cgroup2 none /sys/fs/cgroup');
    journald = spawn(JOURNALD, { stdio: 'ignore' });
    while (!existsSync('/run/systemd/journal/socket')) await pause(20);
    // As systemd starts it, whose stderr is journald's.
    const stream = 'JOURNAL_STREAM=$(stat -Lc %d:%i /dev/stderr)';
    writeFileSync(STARTER, `#!/bin/sh\n${stream} exec ${WEFT} "$@"\n`, { mode: 0o755 });
  });

  test.after(() => {
    NodeAgent.killAll();
    journald?.kill('SIGKILL');
  });

  test('a repair and a leak: level, text and fields', async () => {
    const list = networkList('iptables', 0);
    addContainer(list, 1);
    addContainer(list, 2);
    sh('ip netns del net0-c2; iptables -t nat -F');
    sh('touch -d "1 hour ago" /var/lib/cni/results/net0-net0-c2-eth0');
    sh('touch -d "1 hour ago" $(grep -l net0-c2 /var/lib/cni/networks/net0/*)');
    const agent = await NodeAgent.start([], STARTER);
    const repair = await until(() => entries('WEFT_EVENT=repair')[0]);
    assert.equal(
      [repair['PRIORITY'], repair['SYSLOG_IDENTIFIER'], repair['_PID'], repair['WEFT_ATTACHMENTS']],
      ['4', 'weft', String(agent.process.pid), '1'],
    );
    const { WEFT_RESTORED: restored, WEFT_MISSING: missing, WEFT_MS: ms } = repair;
    assert.match(
      repair['MESSAGE'] ?? '',
      `repair: restored=${restored} missing=${missing} attachments=1 ms=${ms}: `,
    );
    const leak = await until(() => entries('WEFT_EVENT=leak')[0]);
    assert.equal([leak['WEFT_NETWORK'], leak['WEFT_CONTAINER']], ['net0', 'net0-c2']);
    assert.is(await agent.stop(), 0);
    assert.is(agent.log, '');
  });

  test('a thousand lines at once: none is lost', async () => {
    const { dev, ino } = fstatSync(2);
    process.env['JOURNAL_STREAM'] = `${dev}:${ino}`;
    const log = logTo('info');
    for (let line = 1; line <= 1_000; line++) log('warning', `line ${line}`, { event: 'missing' });
    await until(() => (entries('WEFT_EVENT=missing').length === 1_000 ? true : undefined));
  });

  test('a value cannot make another field', async () => {
    logTo('info')('error', 'one\nMESSAGE=two', { event: 'call', container: 'c1\nPRIORITY=0' });
    const entry = await until(() => entries('WEFT_EVENT=call')[0]);
    assert.equal(
      [entry['MESSAGE'], entry['WEFT_CONTAINER'], entry['PRIORITY']],
      ['one MESSAGE=two', 'c1 PRIORITY=0', '3'],
    );
  });

  test('lines go to stderr when nothing listens on the socket, and when it is gone', async () => {
    journald?.kill('SIGKILL');
    const agent = await NodeAgent.start([], STARTER);
    assert.match(agent.log, /^release \w+: /);
    rmSync('/run/systemd/journal/socket');
    assert.is(await agent.stop(), 0);
    assert.match(agent.log, /^stopped by a signal$/m);
  });
}

test.run();
