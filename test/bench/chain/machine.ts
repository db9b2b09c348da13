/** The machine that figures were made on, and the private host that the benchmark runs on. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { runOnOwnHost } from '../../support/own-host.ts';
import type { Backend } from './suites.ts';

export function sh(command: string): string {
  return execFileSync('sh', ['-c', command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
}

export function describeMachine(): string {
  const iptables = spawnSync('iptables', ['--version'], { encoding: 'utf8' }).stdout?.trim() ?? 'no iptables';
  const model = cpus()[0]?.model ?? 'unknown processor';
  return `${availableParallelism()} x ${model}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, ${iptables}`;
}

/** Runs this very script again on a host of its own (fresh network, /run, /var, /etc); nothing of the machine is touched. */
export function onOwnHost(script: string, args: readonly string[]): void {
  if (process.env['WEFT_BENCH_HOST'] === '1') return;
  process.exit(runOnOwnHost(script, args, { WEFT_BENCH_HOST: '1' }));
}

/** A clean host whose `iptables` is of the backend's variant. */
export function resetHost(backend: Backend): void {
  sh('for n in $(ls /run/netns 2>/dev/null); do umount /run/netns/$n 2>/dev/null; rm -f /run/netns/$n; done');
  sh("for l in $(ip -o link show type bridge | awk -F': ' '{print $2}'); do ip link del $l; done");
  sh('nft flush ruleset');
  for (const family of ['ip', 'ip6']) {
    for (const table of legacyTables(family)) {
      const tool = `${family}tables-legacy -t ${table}`;
      sh(`${tool} -F; ${tool} -X`);
    }
  }
  for (const path of ['/run/cni', '/var/lib/cni', '/run/weft', '/etc/weft'])
    rmSync(path, { recursive: true, force: true });
  useBackend(backend);
}

/** Only those that are there: to look at a legacy table is to make it, and its hooks with it. */
function legacyTables(family: string): string[] {
  const list = `/proc/net/${family}_tables_names`;
  return existsSync(list) ? readFileSync(list, 'utf8').split('\n').filter(Boolean) : [];
}

export function useBackend(backend: Backend): void {
  const variant = backend === 'iptables-legacy' ? 'legacy' : 'nft';
  const folder = `/run/bench-${variant}`;
  mkdirSync(folder, { recursive: true });
  for (const family of ['iptables', 'ip6tables']) {
    for (const program of ['', '-save', '-restore']) {
      rmSync(`${folder}/${family}${program}`, { force: true });
      symlinkSync(`/usr/sbin/${family}-${variant}${program}`, `${folder}/${family}${program}`);
    }
  }
  process.env['PATH'] = `${folder}:/usr/sbin:/usr/bin:/sbin:/bin`;
  mkdirSync('/etc/weft', { recursive: true });
  writeFileSync(
    '/etc/weft/weft.json',
    JSON.stringify({ backend: backend === 'nftables' ? 'nftables' : 'iptables' }),
  );
}
