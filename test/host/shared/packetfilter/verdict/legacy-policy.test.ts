import { existsSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { legacyForwardPolicy } from '../../../../../shared/packetfilter/verdict/legacy-policy.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite('policies of iptables-legacy');
const FAMILIES = [
  ['ipv4', 'iptables-legacy', '/proc/net/ip_tables_names'],
  ['ipv6', 'ip6tables-legacy', '/proc/net/ip6_tables_names'],
] as const;

if (existsSync('/usr/sbin/iptables-legacy')) {
  for (const [family, program, names] of FAMILIES) {
    const run = (line: string): void => void execFileSync(program, line.split(' '));

    test(`${family}: a table that nobody used is not brought into being`, () => {
      assert.is(legacyForwardPolicy(family), undefined);
      assert.ok(!existsSync(names) || !execFileSync('cat', [names], { encoding: 'utf8' }).includes('filter'));
    });

    test(`${family}: FORWARD's policy, whatever else the table holds`, () => {
      run('-P INPUT DROP');
      assert.is(legacyForwardPolicy(family), 'accept');
      run('-P FORWARD DROP');
      assert.is(legacyForwardPolicy(family), 'drop');
      run('-N MINE');
      for (let count = 0; count < 50; count++) {
        run(`-A MINE -p tcp -m tcp --dport ${1000 + count} -j DROP`);
        run('-A FORWARD -i br0 -m conntrack --ctstate NEW -j MINE');
        run('-A OUTPUT -j ACCEPT');
      }
      assert.is(legacyForwardPolicy(family), 'drop');
      run('-P FORWARD ACCEPT');
      run('-P OUTPUT DROP');
      assert.is(legacyForwardPolicy(family), 'accept');
    });
  }
} else {
  test.skip('all of it', 'iptables-legacy is not installed');
}

test.run();
