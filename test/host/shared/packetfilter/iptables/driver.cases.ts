import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { suite } from '../../../../support/suite.ts';
import { CniError } from '../../../../../shared/cni/errors.ts';
import { inNamespace } from '../../../../../shared/kernel/namespace.ts';
import {
  createIptablesDriver,
  type IptablesDriverOptions,
} from '../../../../../shared/packetfilter/iptables/driver.ts';
import { parseRule } from '../../../../../shared/packetfilter/iptables/parse.ts';
import type { PacketFilterDriver, Rule, TableChange } from '../../../../../shared/packetfilter/ruleset.ts';
import { applyInProcess } from './apply-in-process.ts';
import { FILTER_RULES, NAT_RULES } from './sample-rules.ts';
import {
  clear,
  removePrograms,
  rules,
  run,
  saved,
  sh,
  useVariant,
  wrap,
  type Variant,
} from '../../../../support/variants.ts';

/** Legacy tables are written in process, unless the programs have to be started by another. */
export type Way = 'by programs' | 'in process';

/** The driver on a real kernel; the same for both variants, and for both ways of writing legacy tables. */
export function driverCases(variant: Variant, way: Way): void {
  const test = suite(`iptables driver on iptables-${variant}, ${way}`, { limit: 120 });
  const onlyPrograms = way === 'by programs';
  /** The driver that runs the programs, also where the one over netlink would be chosen. */
  const chooseDriver = (options: Partial<IptablesDriverOptions> = {}): PacketFilterDriver =>
    createIptablesDriver({ where: 'host', timeoutMs: 20_000, onlyPrograms, ...options });
  const programs = (commits: number): number => (way === 'by programs' ? commits : 0);
  const rule = (text: string): Rule => parseRule(text) as Rule;
  const count = (): number =>
    (readFileSync('/run/restores', { flag: 'a+' }).toString().match(/x/g) ?? []).length;

  test.before(() => {
    useVariant(variant);
    for (const family of ['iptables', 'ip6tables']) {
      wrap(variant, `${family}-restore`, 'echo x >> /run/restores\nexec $REAL "$@"');
    }
  });
  test.beforeEach(() => {
    clear('filter', 'nat');
    rmSync('/run/restores', { force: true });
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

  test('commits a change once, and nothing when it is fulfilled', () => {
    const driver = chooseDriver();
    driver.apply([change]);
    const golden = [
      '*filter',
      ':INPUT ACCEPT',
      ':FORWARD ACCEPT',
      ':OUTPUT ACCEPT',
      ':CNI-X -',
      ':NOMAD-ADMIN -',
      '-A FORWARD -m comment --comment "a \\"b\\"" -j CNI-X',
      '-A CNI-X -s 10.0.0.2/32 -j ACCEPT',
      '-A CNI-X -j RETURN',
      'COMMIT',
    ].join('\n');
    assert.is(saved('filter'), golden);
    assert.is(count(), programs(1));
    driver.apply([change]);
    assert.is(saved('filter'), golden);
    assert.is(count(), programs(1));
    driver.apply([{ family: 'ipv4', table: 'filter', deleteChains: ['CNI-X', 'NOMAD-ADMIN'] }]);
    assert.equal(rules('filter'), []);
    assert.is(count(), programs(2));
  });

  test('reads back what stands there', () => {
    const driver = chooseDriver();
    sh('iptables -N OTHER');
    run('iptables', '-A', 'OTHER', '-p', 'esp', '-j', 'ACCEPT');
    run('iptables', '-A', 'OTHER', '-m', 'comment', '--comment', "it's", '-j', 'DROP');
    const state = driver.read('ipv4', 'filter');
    assert.equal([...state.chains.keys()], ['INPUT', 'FORWARD', 'OUTPUT', 'OTHER']);
    const foreign =
      way === 'by programs'
        ? '-p esp -j ACCEPT'
        : 'entry 4 of the table, that only iptables-save can put into words';
    assert.equal(state.chains.get('OTHER'), [
      { unmanaged: foreign },
      { matches: [{ kind: 'comment', comment: "it's" }], target: { kind: 'drop' } },
    ]);
    assert.is(state.chains.get('NONE'), undefined);
  });

  test('inserts between unmanaged rules and moves only its own', () => {
    const driver = chooseDriver();
    const first: TableChange = {
      family: 'ipv4',
      table: 'filter',
      ensureChains: ['CNI-FORWARD'],
      ensureRules: [{ chain: 'FORWARD', rule: rule('-j CNI-FORWARD'), at: 'first' }],
    };
    sh('iptables -A FORWARD -p esp -j ACCEPT');
    driver.apply([first]);
    sh('iptables -I FORWARD 1 -p ah -j ACCEPT');
    sh('iptables -A FORWARD -j CNI-FORWARD');
    driver.apply([first]);
    const forward = [
      '-A FORWARD -j CNI-FORWARD',
      '-A FORWARD -p ah -j ACCEPT',
      '-A FORWARD -p esp -j ACCEPT',
    ];
    assert.equal(rules('filter'), [':CNI-FORWARD -', ...forward]);
  });

  test('inserts at any place, and puts back a copy that must stay', () => {
    const driver = chooseDriver();
    for (const target of ['DROP', 'ACCEPT', 'RETURN', 'DROP']) sh(`iptables -A OUTPUT -j ${target}`);
    const drop: TableChange = {
      family: 'ipv4',
      table: 'filter',
      ensureRules: [{ chain: 'OUTPUT', rule: rule('-j DROP'), at: 'last' }],
    };
    driver.apply([drop]);
    assert.equal(rules('filter'), ['-A OUTPUT -j DROP', '-A OUTPUT -j ACCEPT', '-A OUTPUT -j RETURN']);
  });

  test('every rule that the suite writes reads back byte for byte', () => {
    const chains = new Map([
      ['filter', FILTER_RULES],
      ['nat', NAT_RULES],
    ]);
    for (const [table, texts] of chains) {
      for (const [at, text] of texts.entries()) {
        const chain = `X${at}`;
        chooseDriver().apply([
          { family: 'ipv4', table: table as 'filter' | 'nat', setChains: [{ chain, rules: [rule(text)] }] },
        ]);
        assert.ok(saved(table).includes(`\n-A ${chain} ${text}\n`), saved(table));
      }
      const before = count();
      const again = texts.map((text, at) => ({ chain: `X${at}`, rules: [rule(text)] }));
      chooseDriver().apply([{ family: 'ipv4', table: table as 'filter' | 'nat', setChains: again }]);
      assert.is(count(), before, 'a second time there is nothing to commit');
    }
  });

  test('is all or nothing', () => {
    sh('iptables -N KEPT');
    const before = saved('filter');
    const bad: TableChange = {
      ...change,
      ensureRules: [{ chain: 'INPUT', rule: rule('-j NO-SUCH-CHAIN'), at: 'last' }],
      deleteChains: ['KEPT'],
    };
    const error = thrownBy(() => chooseDriver().apply([bad]));
    assert.is(error.code, 999);
    assert.match(error.message, /refused to change table filter \(ipv4\), status \d; nothing was changed/);
    assert.match(error.details ?? '', /NO-SUCH-CHAIN/);
    assert.is(saved('filter'), before);
    assert.ok(count() <= 4, `${count()} attempts`);
  });

  test('both families and tables in one call', () => {
    const v6: TableChange = { family: 'ipv6', table: 'nat', ensureChains: ['CNI-6'] };
    chooseDriver().apply([change, v6, { family: 'ipv4', table: 'nat', ensureChains: ['CNI-4'] }]);
    assert.equal(rules('nat', 'ipv6'), [':CNI-6 -']);
    assert.equal(rules('nat'), [':CNI-4 -']);
    assert.is(count(), programs(3));
  });

  test('a plan sees the table as it is, and may refuse', () => {
    sh('iptables -N SEEN');
    const error = thrownBy(() =>
      chooseDriver().apply([
        {
          family: 'ipv4',
          table: 'filter',
          plan: (state) => {
            throw new CniError(7, `saw ${state.chains.has('SEEN')}`);
          },
        },
      ]),
    );
    assert.is(error.message, 'saw true');
    assert.is(count(), 0);
  });

  const whenProgramsCommit = way === 'by programs' ? test : (): void => undefined;
  whenProgramsCommit('reads again when another program was faster', () => {
    const meddle = `echo x >> /run/restores\n[ $(wc -l < /run/restores) = 1 ] && /usr/sbin/iptables-${variant} -N CNI-X\nexec $REAL "$@"`;
    wrap(variant, 'iptables-restore', meddle);
    try {
      chooseDriver().apply([change]);
    } finally {
      wrap(variant, 'iptables-restore', 'echo x >> /run/restores\nexec $REAL "$@"');
    }
    assert.is(count(), 2);
    assert.is(rules('filter').filter((line) => line.includes('-j CNI-X')).length, 1);
  });

  test('twelve processes at once on a fresh table: no failure, no duplicate', async () => {
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
  else nftCases(test, chooseDriver);

  test('a host without ip6tables does IPv4 and says what it lacks for IPv6', () => {
    removePrograms('ip6tables-restore');
    rmSync(`/run/test-iptables-${variant}/ip6tables-restore`);
    const driver = chooseDriver();
    assert.not(driver.supports('ipv6'));
    driver.apply([change]);
    const error = thrownBy(() => driver.apply([{ family: 'ipv6', table: 'nat', ensureChains: ['X'] }]));
    assert.match(error.message, /this host has no ip6tables-restore/);
  });

  test.run();
}

type Choose = (options?: Partial<IptablesDriverOptions>) => PacketFilterDriver;

function legacyCases(test: ReturnType<typeof suite>, change: TableChange, chooseDriver: Choose): void {
  test('waits for whoever holds the lock of iptables, but not for ever', async () => {
    const holder = spawn(
      'flock',
      ['--no-fork', '/run/xtables.lock', 'sh', '-c', 'echo held; exec sleep 60'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    await new Promise((held) => holder.stdout.once('data', held));
    const began = Date.now();
    const error = thrownBy(() => chooseDriver({ timeoutMs: 1_000 }).apply([change]));
    assert.is(error.code, 11);
    assert.ok(Date.now() - began < 8_000, `gave up after ${Date.now() - began} ms`);
    // A container's namespace has tables of its own: the host's lock is none of its business.
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

function nftCases(test: ReturnType<typeof suite>, chooseDriver: Choose): void {
  test('does not take a table that iptables cannot show for an empty one', () => {
    sh('iptables -A INPUT -p esp -j ACCEPT');
    sh('nft add rule ip filter INPUT ct state new accept');
    const error = thrownBy(() => chooseDriver().read('ipv4', 'filter'));
    assert.match(error.message, /cannot read table filter \(ipv4\)/);
    assert.match(error.details ?? '', /nft list table ip filter/);
    sh('nft flush chain ip filter INPUT');
  });
}

function thrownBy(work: () => void): CniError {
  try {
    work();
  } catch (thrown) {
    assert.instance(thrown, CniError);
    return thrown as CniError;
  }
  throw new Error('nothing was thrown');
}
