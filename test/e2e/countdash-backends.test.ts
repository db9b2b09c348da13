import { spawnSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { executable } from '../support/executables.ts';
import { suite } from '../support/suite.ts';
import { makeClientHost, sh, traces, useXtables } from './support/client-host.ts';
import { countdashOnce, RunningExample } from './support/example.ts';

/** The example with each way of holding the rules, with one family and with two: IPv6 does not bypass the proxy. */
const test = suite('countdash on each backend', { limit: 300 });

let before = '';
test.before(makeClientHost);

/** In this order: once the tools mean the legacy variant, they mean it for the rest of the file. */
const BACKENDS = [
  { title: 'iptables-nft', options: ['--backend', 'iptables'], variant: 'nft' },
  { title: 'nftables', options: ['--backend', 'nftables'], variant: 'nft' },
  { title: 'iptables-legacy', options: ['--backend', 'iptables'], variant: 'legacy' },
] as const;

for (const { title, options, variant } of BACKENDS) {
  test(`${title}: everything holds with one family, and nothing is left`, () => {
    useVariant(variant);
    holds(countdashOnce(...options));
  });

  test(`${title}: with two families IPv6 does not bypass the proxy, in either direction`, () => {
    const output = holds(countdashOnce('--dual-stack', ...options));
    for (const way of [
      /the dashboard cannot bypass the proxy: IPv6 to count-api at fd77:\S+ port 9001: ECONNREFUSED/,
      /count-api cannot bypass the proxy: IPv6 to the open page at fd77:\S+ port 9002: ECONNREFUSED/,
      /the host cannot bypass the proxy: IPv6 to count-api at fd77:\S+ port 9001: ECONNREFUSED/,
    ]) {
      assert.match(output, way);
    }
  });

  test(`${title}: that is where the rules stand while it runs`, async () => {
    const example = new RunningExample(...options);
    await example.page();
    const shown = spawnSync(executable('weft'), ['show', '--netns', 'weft-demo-dashboard'], {
      encoding: 'utf8',
    });
    const mapped = variant === 'legacy' ? 'iptables-legacy-save -t nat' : 'nft list ruleset';
    const rules = sh(mapped);
    example.child.kill('SIGINT');
    assert.is(await example.ended, 0, example.output);
    assert.equal(shown.stdout.match(/^Rules in \S+$/gm), [`Rules in ${title}`]);
    assert.is(rules.includes('table ip weft_hostports'), title === 'nftables');
    assert.is(rules.includes('table inet weft_masquerade'), title === 'nftables');
    assert.is(rules.includes('CNI-HOSTPORT-DNAT'), title !== 'nftables');
    assert.is(traces(), before);
  });
}

test('the node’s own choice counts where none is named, and leaves as little', () => {
  sh(`mkdir -p /etc/weft; printf '{"backend":"nftables"}' > /etc/weft/weft.json`);
  try {
    holds(countdashOnce('--dual-stack'));
  } finally {
    sh('rm -r /etc/weft');
  }
});

test('a backend that does not exist is refused by name', () => {
  const { exitCode, output } = countdashOnce('--backend', 'ipfw');
  assert.is(exitCode, 2);
  assert.match(output, '--backend must be iptables or nftables, got "ipfw"');
});

test.run();

let current = '';
function useVariant(variant: 'nft' | 'legacy'): void {
  if (variant === current) return;
  // What one variant drops the other cannot accept: a host has its policy in one of them.
  sh('iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT');
  current = variant;
  useXtables(variant);
  sh('iptables -P FORWARD DROP; ip6tables -P FORWARD DROP');
  before = traces();
}

function holds({ exitCode, output }: { exitCode: number | null; output: string }): string {
  assert.is(exitCode, 0, output);
  assert.match(output, /(\d+) of \1 hold/);
  assert.not.match(output, 'FAIL');
  assert.match(output, 'nothing is left');
  assert.not.match(output, 'changed on this host');
  assert.is(traces(), before);
  return output;
}
