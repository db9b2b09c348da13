import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { suite, type Suite } from '../../../../support/suite.ts';
import { inNamespace } from '../../../../../shared/kernel/namespace.ts';
import { parseRule } from '../../../../../shared/packetfilter/iptables/parse.ts';
import type { PacketFilterDriver, Rule, TableChange } from '../../../../../shared/packetfilter/ruleset.ts';
import { chooseDriver as choose, type DriverOptions } from '../../../../../shared/packetfilter/select.ts';
import { generation } from '../../../../support/port-host.ts';
import { cniError, driverCases } from '../../../../support/packetfilter/driver-cases.ts';
import { applyInProcess } from './apply-in-process.ts';
import {
  clear,
  removePrograms,
  rules,
  run,
  saved,
  sh,
  useVariant,
  wordsOf,
  wrap,
  type Variant,
} from '../../../../support/variants.ts';

/** Whether iptables' programs read and write the tables, or this process does. */
type Way = 'by programs' | 'in process';

/** The common cases of every driver, and what only a kernel and other processes can show. */
export function kernelDriverCases(variant: Variant, way: Way): void {
  const test = suite(`iptables driver on iptables-${variant}, ${way}`, { limit: 120 });
  const chooseDriver = (options: DriverOptions = {}): PacketFilterDriver =>
    choose({ timeoutMs: 20_000, onlyPrograms: way === 'by programs', ...options });
  const rule = (text: string): Rule => parseRule(text) as Rule;

  test.before(() => {
    useVariant(variant);
    for (const family of ['iptables', 'ip6tables']) {
      wrap(variant, `${family}-restore`, 'echo x >> /run/restores\nexec $REAL "$@"');
    }
  });
  driverCases(test, {
    driver: chooseDriver,
    reset: () => {
      if (variant === 'nft') sh('nft flush ruleset');
      else clear('filter', 'nat');
      rmSync('/run/restores', { force: true });
    },
    command: (line) => void run(...(wordsOf(line) as [string, ...string[]])),
    saved,
    transactions: () => (variant === 'nft' ? generation() : restores()),
  });

  const change: TableChange = {
    family: 'ipv4',
    table: 'filter',
    ensureChains: ['NOMAD-ADMIN'],
    setChains: [{ chain: 'CNI-X', rules: [rule('-s 10.0.0.2/32 -j ACCEPT'), rule('-j RETURN')] }],
    setJumps: [{ chain: 'FORWARD', to: 'CNI-X', rules: [rule('-m comment --comment "a \\"b\\"" -j CNI-X')] }],
  };

  test('says which variant it drives', () => {
    const driver = chooseDriver();
    assert.is(driver.name, `iptables-${variant}`);
    assert.ok(driver.supports('ipv4') && driver.supports('ipv6'));
  });

  if (way === 'by programs') overtakenCase(test, variant, change, chooseDriver);

  test('a rule with raw arguments is left to the programs', () => {
    const rules = [rule('-m statistic --mode random --probability 0.5 -j RETURN')];
    chooseDriver().apply([{ family: 'ipv4', table: 'nat', setChains: [{ chain: 'CNI-W', rules }] }]);
    assert.match(saved('nat'), /-A CNI-W -m statistic --mode random/);
  });

  test('twelve processes at once on an unused table: no failure, no duplicate', async () => {
    const outcomes = await Promise.all(Array.from({ length: 12 }, (_, at) => applyInProcess(at)));
    assert.equal(
      outcomes.filter((outcome) => outcome !== ''),
      [],
    );
    const lines = rules('filter');
    assert.is(lines.filter((line) => line === '-A FORWARD -j CNI-FORWARD').length, 1);
    assert.is(lines.filter((line) => line.startsWith('-A CNI-FORWARD ')).length, 13);
    assert.is(new Set(lines).size, lines.length);
  });

  test('works inside another namespace and leaves the host alone', () => {
    sh('ip netns add inner');
    try {
      inNamespace('/run/netns/inner', () => chooseDriver({ where: 'container' }).apply([change]));
      assert.match(saved('filter', 'ipv4', 'inner'), /-A CNI-X -s 10\.0\.0\.2\/32 -j ACCEPT/);
      assert.equal(rules('filter'), []);
    } finally {
      sh('ip netns del inner');
    }
  });

  if (variant === 'legacy') legacyCases(test, change, chooseDriver);
  else if (way === 'by programs') unreadableCase(test, chooseDriver);

  test('a host without ip6tables does IPv4 and says what it lacks for IPv6', () => {
    removePrograms('ip6tables-restore');
    rmSync(`/run/test-iptables-${variant}/ip6tables-restore`);
    const driver = chooseDriver();
    assert.not(driver.supports('ipv6'));
    driver.apply([change]);
    const error = cniError(() => driver.apply([{ family: 'ipv6', table: 'nat', ensureChains: ['X'] }]));
    assert.match(error.message, /this host has no ip6tables-restore/);
  });

  test.run();
}

/** How often iptables-restore was called since the last reset. */
function restores(): number {
  return existsSync('/run/restores') ? readFileSync('/run/restores', 'utf8').split('\n').length - 1 : 0;
}

type Choose = (options?: DriverOptions) => PacketFilterDriver;

function overtakenCase(test: Suite, variant: Variant, change: TableChange, chooseDriver: Choose): void {
  test('reads the table again when another program changed it first', () => {
    const meddle = `echo x >> /run/restores\n[ $(wc -l < /run/restores) = 1 ] && /usr/sbin/iptables-${variant} -N CNI-X\nexec $REAL "$@"`;
    wrap(variant, 'iptables-restore', meddle);
    try {
      chooseDriver().apply([change]);
    } finally {
      wrap(variant, 'iptables-restore', 'echo x >> /run/restores\nexec $REAL "$@"');
    }
    assert.is(readFileSync('/run/restores', 'utf8'), 'x\nx\n');
    assert.is(rules('filter').filter((line) => line.includes('-j CNI-X')).length, 1);
  });
}

function legacyCases(test: Suite, change: TableChange, chooseDriver: Choose): void {
  test('waits for the lock of iptables, but not longer than its time limit', async () => {
    const holder = spawn(
      'flock',
      ['--no-fork', '/run/xtables.lock', 'sh', '-c', 'echo held; exec sleep 60'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    await new Promise((held) => holder.stdout.once('data', held));
    const began = Date.now();
    const error = cniError(() => chooseDriver({ timeoutMs: 1_000 }).apply([change]));
    assert.is(error.code, 11);
    assert.ok(Date.now() - began < 8_000, `gave up after ${Date.now() - began} ms`);
    // A container's namespace has tables of its own, which the host's lock does not protect.
    chooseDriver({ where: 'container', timeoutMs: 1_000 }).apply([change]);
    holder.kill();
    await new Promise((ended) => holder.once('exit', ended));
  });

  test('does not bring a table into being by looking at it', () => {
    sh('ip netns add untouched');
    const names = (): string => sh('ip netns exec untouched cat /proc/net/ip_tables_names');
    inNamespace('/run/netns/untouched', () => {
      const state = chooseDriver({ where: 'container' }).read('ipv4', 'nat');
      assert.equal([...state.chains.keys()], ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING']);
      chooseDriver().apply([{ family: 'ipv4', table: 'nat', deleteChains: ['CNI-X'] }]);
    });
    assert.is(names(), '');
    sh('ip netns del untouched');
  });
}

function unreadableCase(test: Suite, chooseDriver: Choose): void {
  test('does not take a table that iptables cannot show for an empty one', () => {
    sh('iptables -A INPUT -p esp -j ACCEPT');
    sh('nft add rule ip filter INPUT ct state new accept');
    const error = cniError(() => chooseDriver().read('ipv4', 'filter'));
    assert.match(error.message, /cannot read table filter \(ipv4\)/);
    assert.match(error.details ?? '', /nft list table ip filter/);
    sh('nft flush chain ip filter INPUT');
  });
}
