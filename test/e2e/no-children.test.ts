/**
 * Which programs a chain starts: with either variant of iptables, and with the nftables backend, none but the plugins themselves, for
 * each of Nomad's lists and for ADD, CHECK and DEL. strace sees every execve.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { binDir, executable } from '../support/executables.ts';
import { suite } from '../support/suite.ts';
import { sh, useXtables } from './support/client-host.ts';

const test = suite('programs that a chain starts', { limit: 120 });

const LISTS = ['nomad', 'nomad-dual-stack', 'nomad-hairpin', 'nomad-tproxy'] as const;
const CONFIG = {
  ConsulDNSIP: '192.0.2.1',
  ConsulDNSPort: 8600,
  ProxyUserID: '101',
  ProxyInboundPort: 25018,
  ProxyOutboundPort: 15001,
  ExcludeInboundPorts: ['9002'],
};

/** Programs that one verb starts, without `weft` itself, which plays the runtime. */
function programsOf(verb: 'add' | 'check' | 'del', list: string): string[] {
  const log = '/run/execve.log';
  rmSync(log, { force: true });
  const conflist = resolve(import.meta.dirname, `../../conflist/${list}.conflist`);
  const options = [
    '--conflist',
    conflist,
    '--id',
    'traced',
    '--netns',
    'traced',
    '--port',
    '9002',
    '--bin-dir',
    binDir,
  ];
  const args =
    verb === 'del'
      ? []
      : ['--cni-args', `IgnoreUnknown=true;CONSUL_IPTABLES_CONFIG=${JSON.stringify(CONFIG)}`];
  execFileSync('strace', [
    '-f',
    '-qq',
    '-e',
    'trace=execve',
    '-e',
    'status=successful',
    '-o',
    log,
    executable('weft'),
    'run',
    verb,
    ...options,
    ...args,
  ]);
  const started = [...readFileSync(log, 'utf8').matchAll(/execve\("([^"]+)"/g)].map(
    ([, program = '']) => program,
  );
  return started.filter((program) => basename(program) !== 'weft');
}

/** Nomad's plugins in the order of the list; bridge calls the allocator in its own process. */
function plugins(list: string): string[] {
  const names = [
    'loopback',
    'bridge',
    'firewall',
    'portmap',
    ...(list === 'nomad-tproxy' ? ['consul-cni'] : []),
  ];
  return names.map((name) => `${binDir}/${name}`);
}

function wholeLife(list: string): Record<'add' | 'check' | 'del', string[]> {
  sh('ip netns add traced');
  try {
    return { add: programsOf('add', list), check: programsOf('check', list), del: programsOf('del', list) };
  } finally {
    sh('ip netns del traced');
  }
}

const HOSTS = [
  ['iptables', 'nft'],
  ['nftables', 'nft'],
] as const;

let used: string | undefined;

for (const [backend, variant] of HOSTS) {
  for (const list of LISTS) {
    test(`${list}, ${backend} on a host with iptables-${variant}: no program but the plugins`, () => {
      if (variant !== used) useXtables(variant);
      used = variant;
      mkdirSync('/etc/weft', { recursive: true });
      writeFileSync('/etc/weft/weft.json', JSON.stringify({ backend }));
      const { add, check, del } = wholeLife(list);
      assert.equal(add, plugins(list));
      assert.equal(check, plugins(list));
      assert.equal(del, plugins(list).toReversed());
    });
  }
}

test.run();
