/** consul-cni's own rules, vector by vector: with `exemptions: "consul"` ours are the same, on every backend. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import {
  BACKENDS,
  call,
  makeLegacyFolder,
  newNamespace,
  nftChains,
  saved,
  sh,
  type TestedBackend,
} from '../../../support/tproxy.ts';

interface Vector {
  readonly name: string;
  readonly config: Record<string, unknown>;
  readonly dualStack: boolean;
  readonly commands: readonly string[];
  readonly iptables_save_nat: readonly string[];
  readonly ip6tables_save_nat?: readonly string[];
}

interface NftVector {
  readonly name: string;
  readonly list_table: readonly string[];
}

const test = suite('consul-tproxy: vectors', { limit: 40 });
const vectors = read<Vector[]>('tproxy-vectors.json');
const nftVectors = read<NftVector[]>('tproxy-nft-vectors.json');

test.before(makeLegacyFolder);

test('there are sixteen', () => {
  assert.is(vectors.length, 16);
  assert.equal(
    nftVectors.map(({ name }) => name),
    vectors.map(({ name }) => name),
  );
});

for (const on of BACKENDS) {
  for (const vector of vectors) {
    test(`${on.name}: ${vector.name}`, () => {
      const netns = newNamespace();
      const { exitCode, stdout } = call('ADD', {
        netns,
        on,
        request: vector.config,
        config: upstream(vector),
      });
      assert.is(exitCode, 0, stdout);
      if (on.name === 'nftables') compareWithNftVector(netns, vector);
      else compareWithVector(netns, on, vector);
      sh(`ip netns del ${netns}`);
    });
  }
}

/** The exemptions of `full`, as they stand in each: behind 127.0.0.1, in front of the redirect. */
const FULL = {
  iptables: [
    '-A CONSUL_PROXY_OUTPUT -d 127.0.0.0/8 -j RETURN',
    '-A CONSUL_PROXY_OUTPUT -p tcp -m tcp --dport 53 -j RETURN',
  ],
  nftables: ['ip daddr 127.0.0.0/8 return', 'tcp dport 53 return'],
};

for (const on of BACKENDS) {
  test(`${on.name}: the default is each vector and the exemptions, nothing else`, () => {
    for (const vector of vectors.filter(({ dualStack }) => !dualStack)) {
      const [consul, full] = [natRules(vector, on, 'consul'), natRules(vector, on, 'full')];
      // Where every query is captured, none is left to exempt.
      const added = vector.name === 'dns-ip-only' ? FULL[on.backend].slice(0, 1) : FULL[on.backend];
      assert.equal(full.output, consul.output.toSpliced(-1, 0, ...added), vector.name);
      assert.equal(full.others, consul.others, vector.name);
    }
  });
}

test.run();

/** CONSUL_PROXY_OUTPUT, and all else of IPv4's nat but for port 0, which excludes nothing and is written only for the vectors' sake. */
function natRules(
  { config }: Vector,
  on: TestedBackend,
  exemptions: 'consul' | 'full',
): { output: string[]; others: string[] } {
  const netns = newNamespace();
  const { exitCode, stdout } = call('ADD', {
    netns,
    on,
    request: config,
    config: { exemptions, ipv6: 'bypass' },
  });
  assert.is(exitCode, 0, stdout);
  const lines =
    on.backend === 'iptables'
      ? saved(netns, on)
      : [...nftChains(netns)].flatMap(([chain, rules]) => rules.map((rule) => `${chain}: ${rule}`));
  sh(`ip netns del ${netns}`);
  const isOutput = (line: string): boolean => /^(-A )?CONSUL_PROXY_OUTPUT:? /.test(line);
  return {
    output: lines.filter(isOutput).map((line) => line.replace(/^CONSUL_PROXY_OUTPUT: /, '')),
    others: lines.filter((line) => !isOutput(line) && !/dport 0\b/.test(line)),
  };
}

function read<T>(file: string): T {
  return JSON.parse(readFileSync(resolve(import.meta.dirname, '../../../vectors', file), 'utf8')) as T;
}

/** Upstream's dual stack is our `ipv6: "redirect"`; its single stack leaves IPv6 alone. */
function upstream({ dualStack }: Vector): Record<string, string> {
  return { exemptions: 'consul', ipv6: dualStack ? 'redirect' : 'bypass' };
}

function compareWithVector(netns: string, on: TestedBackend, vector: Vector): void {
  assert.equal(saved(netns, on), vector.iptables_save_nat);
  assert.equal(saved(netns, on, 'ipv6').filter(isOfConsul), whole6(vector).filter(isOfConsul));
}

/**
 * The vectors' IPv6 lists were made by stripping `[0:0]` and lost the bracketed target of DNAT with it (`--to-destination` and nothing
 * behind); what it was stands in the commands of the same vector.
 */
function whole6({ ip6tables_save_nat: list = [], commands }: Vector): string[] {
  const target = /--to-destination (\[.+\]:\d+)$/.exec(
    commands.find((one) => one.includes('--to-destination [')) ?? '',
  )?.[1];
  return list.map((line) => (line.endsWith('--to-destination') ? `${line} ${target ?? '?'}` : line));
}

function isOfConsul(line: string): boolean {
  return line.includes('CONSUL');
}

/**
 * Upstream's coming nftables rules mix the families in one chain; ours keep a chain a family and test the family where they hook in. Both
 * together must be upstream's list, chain by chain, in order within a family.
 */
function compareWithNftVector(netns: string, vector: Vector): void {
  const ours = nftChains(netns);
  const theirs = chainsOf(nftVectors.find(({ name }) => name === vector.name)?.list_table ?? []);
  // With a port and no address upstream's two versions differ: nftables captures on both loopbacks, iptables on ::1 only. Ours is the latter.
  const otherLoopback =
    vector.name === 'dual-stack-dns-port-only' ? /^ip daddr 127\.0\.0\.1 (udp|tcp) dport 53/ : /^$/;
  for (const [chain, rules] of theirs) {
    const wanted4 = rules.filter(
      (rule) => !isIpv6(rule) && rule !== 'meta nfproto ipv6 return' && !otherLoopback.test(rule),
    );
    const wanted6 = vector.dualStack ? rules.filter((rule) => !isIpv4(rule)) : [];
    const found = ours.get(chain) ?? [];
    if (found.some((rule) => rule.startsWith('type '))) {
      assert.equal(
        hooked(found, 'ipv4'),
        wanted4.filter((rule) => !rule.startsWith('type ')),
        chain,
      );
      assert.equal(
        hooked(found, 'ipv6'),
        wanted6.filter((rule) => !rule.startsWith('type ')),
        chain,
      );
    } else {
      assert.equal(found, wanted4, chain);
      assert.equal(ours.get(`${chain}_V6`)?.map(withoutSuffix) ?? [], wanted6, `${chain}_V6`);
    }
  }
}

function chainsOf(lines: readonly string[]): Map<string, string[]> {
  const chains = new Map<string, string[]>();
  let current: string[] = [];
  for (const line of lines) {
    const name = /^\tchain (\S+) \{$/.exec(line)?.[1];
    if (name !== undefined) chains.set(name, (current = []));
    else if (line.startsWith('\t\t')) current.push(line.trim());
  }
  return chains;
}

function hooked(rules: readonly string[], family: string): string[] {
  const guard = `meta nfproto ${family} `;
  return rules.flatMap((rule) => {
    if (rule.startsWith(guard)) return [withoutSuffix(rule.slice(guard.length))];
    const address = family === 'ipv4' ? 'ip ' : 'ip6 ';
    return rule.startsWith(address) ? [withoutSuffix(rule)] : [];
  });
}

function withoutSuffix(rule: string): string {
  return rule.replace(/_V6$/, '');
}

function isIpv6(rule: string): boolean {
  return rule.startsWith('ip6 ');
}

function isIpv4(rule: string): boolean {
  return rule.startsWith('ip ');
}
