/** `weft render tproxy`: the rules as text, which the tools themselves take and which is what ADD makes. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { BACKENDS, call, makeLegacyFolder, newNamespace, REQUEST, saved, sh } from '../../support/tproxy.ts';
import { executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';

const test = suite('weft render', { limit: 60 });

test.before(makeLegacyFolder);

interface Vector {
  readonly name: string;
  readonly config: object;
  readonly dualStack: boolean;
  readonly iptables_save_nat: readonly string[];
}

test('for iptables: iptables-restore makes of it what the vectors have', () => {
  const file = resolve(import.meta.dirname, '../../vectors/tproxy-vectors.json');
  const vectors = JSON.parse(readFileSync(file, 'utf8')) as Vector[];
  const [on] = BACKENDS;
  assert.ok(on);
  for (const vector of vectors.filter(({ dualStack }) => !dualStack)) {
    const netns = newNamespace();
    const { stdout } = render(
      '--config',
      JSON.stringify(vector.config),
      '--backend',
      'iptables',
      '--exemptions',
      'consul',
      '--ipv6',
      'bypass',
    );
    writeFileSync('/tmp/rules', stdout);
    sh(`ip netns exec ${netns} iptables-restore --noflush < /tmp/rules`);
    assert.equal(saved(netns, on), vector.iptables_save_nat, vector.name);
  }
});

for (const on of BACKENDS) {
  test(`${on.name}: loaded by the tool, it is what ADD makes`, () => {
    const rich = ['--ipv6', 'redirect', '--udp', 'reject', '--dns-capture', 'all'];
    const { stdout } = render('--config', JSON.stringify(REQUEST), '--backend', on.backend, ...rich);
    const [loaded, added] = [newNamespace(), newNamespace()];
    load(loaded, on, stdout);
    assert.is(
      call('ADD', { netns: added, on, config: { ipv6: 'redirect', udp: 'reject', dnsCapture: 'all' } })
        .exitCode,
      0,
    );
    assert.is(ruleset(loaded, on), ruleset(added, on));
    // A script for nft replaces what is there.
    if (on.backend === 'nftables') load(loaded, on, stdout);
    assert.is(ruleset(loaded, on), ruleset(added, on));
  });
}

test('options that are not given come from the node', () => {
  mkdirSync('/etc/weft', { recursive: true });
  writeFileSync('/etc/weft/weft.json', '{"backend":"nftables","tproxy":{"ipv6":"bypass"}}');
  try {
    const { stdout } = render('--config', JSON.stringify(REQUEST));
    assert.match(
      stdout,
      /^add table inet consul_tproxy\ndelete table inet consul_tproxy\nadd table inet consul_tproxy\n/,
    );
    assert.not.match(stdout, /reject/);
  } finally {
    rmSync('/etc/weft', { recursive: true });
  }
});

test('reads the configuration from a file; passes warnings to stderr', () => {
  writeFileSync('/tmp/config.json', JSON.stringify({ ...REQUEST, ExcludeInboundPorts: ['0'] }));
  const { stdout, stderr } = render('--config', '@/tmp/config.json');
  assert.match(stdout, /--to-ports 15001/);
  assert.match(stderr, /ignoring "0"/);
});

test('reports all problems, and its usage', () => {
  const broken = render('--config', '{"ProxyInboundPort":"x"}');
  assert.is(broken.status, 1);
  assert.match(broken.stderr, /"ProxyInboundPort" must be a whole number.*ProxyUserID is required/);
  for (const argv of [[], ['--config'], ['nonsense', '--config', '{}']]) {
    assert.is(spawnSync(executable('weft'), ['render', ...argv]).status, 2, argv.join(' '));
  }
  assert.match(render('--config', '{}', '--ipv6', 'perhaps').stderr, /"ipv6" must be one of/);
});

test.run();

function render(...argv: readonly string[]): { stdout: string; stderr: string; status: number | null } {
  return spawnSync(executable('weft'), ['render', 'tproxy', ...argv], { encoding: 'utf8' });
}

function load(netns: string, on: (typeof BACKENDS)[number], text: string): void {
  if (on.backend === 'nftables') {
    writeFileSync('/tmp/rules', text);
    sh(`ip netns exec ${netns} nft -f /tmp/rules`);
    return;
  }
  for (const part of text.split(/^(?=# ip6?tables-restore)/m)) {
    const [, tool = ''] = /^# (\S+)-restore --noflush/.exec(part) ?? [];
    writeFileSync('/tmp/rules', part);
    sh(
      `ip netns exec ${netns} ${tool}-${on.name === 'iptables-legacy' ? 'legacy' : 'nft'}-restore --noflush < /tmp/rules`,
    );
  }
}

function ruleset(netns: string, on: (typeof BACKENDS)[number]): string {
  if (on.backend === 'nftables') return sh(`ip netns exec ${netns} nft -s list table inet consul_tproxy`);
  const families = ['ipv4', 'ipv6'] as const;
  return families
    .flatMap((family) => ['nat', 'filter'].flatMap((table) => saved(netns, on, family, table)))
    .join('\n');
}
