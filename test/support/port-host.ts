import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { NftConnection } from '../../shared/packetfilter/nftables/connection.ts';
import { TIME_FACTOR } from './suite.ts';
import { run, sh, type Variant } from './variants.ts';
import { errorOf, runPluginProcess, variables, type Attachment } from './plugin.ts';
import type { PluginName } from './executables.ts';
import type { CniErrorJson } from '../../shared/cni/errors.ts';

/**
 * A small world around this test's host:
 *
 *     outside                    host                              containers
 *     192.0.2.2/24      up0  192.0.2.1/24    br0  10.88.0.1/16     c1: 10.88.0.11/16, fd00:88::11/64
 *     2001:db8::2/64         2001:db8::1/64       fd00:88::1/64    c2: 10.88.0.12/16, …
 *                            198.51.100.1/32 (a second address)
 *
 * Containers are made by hand, without the bridge plugin: what is tested gets a prevResult that says what is there.
 */
export const HOST = { ipv4: '192.0.2.1', ipv6: '2001:db8::1', other: '198.51.100.1' } as const;
export const OUTSIDE = { ipv4: '192.0.2.2', ipv6: '2001:db8::2' } as const;

export function makeWorld(): void {
  // No DAD on the interfaces to come: with a tentative link-local address the kernel forwards nothing to a new IPv6 neighbour.
  sh('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0');
  sh('ip netns add outside');
  sh('ip link add up0 type veth peer name eth0 netns outside');
  for (const [name, address] of [
    ['up0', '192.0.2.1/24'],
    ['up0', '2001:db8::1/64'],
    ['lo', '198.51.100.1/32'],
  ] as const) {
    run('ip', 'addr', 'add', address, 'dev', name, ...(address.includes(':') ? ['nodad'] : []));
  }
  sh('ip link set up0 up');
  inside('outside', 'ip addr add 192.0.2.2/24 dev eth0');
  inside('outside', 'ip addr add 2001:db8::2/64 dev eth0 nodad');
  bringUp('outside', '192.0.2.1', '2001:db8::1');
  makeBridge('br0', '10.88.0.1/16', 'fd00:88::1/64');
}

export function makeBridge(name: string, ...addresses: string[]): void {
  sh(`ip link add ${name} type bridge`);
  for (const address of addresses) {
    run('ip', 'addr', 'add', address, 'dev', name, ...(address.includes(':') ? ['nodad'] : []));
  }
  sh(`ip link set ${name} up`);
}

/** A container on a bridge and what bridge would have said of it. */
export interface Container {
  readonly id: string;
  readonly netns: string;
  readonly ipv4: string;
  readonly ipv6: string;
  readonly prevResult: Record<string, unknown>;
}

export function makeContainer(id: string, number: number, bridge = 'br0', subnet = 88): Container {
  const [ipv4, ipv6] = [`10.${subnet}.0.${number}`, `fd00:${subnet}::${number}`];
  sh(`ip netns add ${id}`);
  sh(`ip link add v-${id} type veth peer name eth0 netns ${id}`);
  sh(`ip link set v-${id} master ${bridge} up`);
  sh(`bridge link set dev v-${id} hairpin on`);
  inside(id, `ip addr add ${ipv4}/16 dev eth0`);
  inside(id, `ip addr add ${ipv6}/64 dev eth0 nodad`);
  bringUp(id, `10.${subnet}.0.1`, `fd00:${subnet}::1`);
  const netns = `/run/netns/${id}`;
  return { id, netns, ipv4, ipv6, prevResult: resultOf(netns, [`${ipv4}/16`, `${ipv6}/64`], bridge) };
}

export function removeContainer({ id }: Container): void {
  // The pair first: with the namespace alone it would go some time later, and the next container needs its name.
  sh(`ip link del v-${id}`);
  sh(`ip netns del ${id}`);
}

export function resultOf(
  netns: string,
  addresses: readonly string[],
  bridge = 'br0',
): Record<string, unknown> {
  return {
    cniVersion: '1.0.0',
    interfaces: [{ name: bridge }, { name: 'v-x' }, { name: 'eth0', sandbox: netns }],
    ips: addresses.map((address) => ({ interface: 2, address })),
  };
}

export function inside(namespace: string, line: string): string {
  return sh(`ip netns exec ${namespace} ${line}`);
}

function bringUp(namespace: string, gateway4: string, gateway6: string): void {
  inside(namespace, 'ip link set lo up');
  inside(namespace, 'ip link set eth0 up');
  inside(namespace, `ip route add default via ${gateway4}`);
  inside(namespace, `ip route add default via ${gateway6}`);
}

/** A server on the same port of tcp and udp, both families, that answers with `<name> <address of its client>`. */
export async function serve(namespace: string, name: string, ...ports: number[]): Promise<ChildProcess> {
  const child = spawn(
    'ip',
    ['netns', 'exec', namespace, process.execPath, '--no-warnings', '-e', SERVER, name, ports.join(',')],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  await new Promise((ready, failed) => {
    child.stdout.once('data', ready);
    child.once('exit', (code) => failed(new Error(`server in ${namespace} ended: ${code}`)));
  });
  return child;
}

/** What a client in a namespace ('' is this host) hears from there; `nothing` without an answer in time. */
export function ask(
  namespace: string,
  protocol: 'tcp' | 'udp',
  address: string,
  port: number,
  options: { sourcePort?: number; patience?: number } = {},
): string {
  const { sourcePort = 0, patience = 1_500 * TIME_FACTOR } = options;
  const words = [
    process.execPath,
    '--no-warnings',
    '-e',
    CLIENT,
    protocol,
    address,
    port,
    sourcePort,
    patience,
  ];
  const [file = '', ...args] = [
    ...(namespace === '' ? [] : ['ip', 'netns', 'exec', namespace]),
    ...words,
  ].map(String);
  return spawnSync(file, args, { encoding: 'utf8' }).stdout.trim();
}

/** Waits: link-local addresses take a second or two before IPv6 neighbours find each other. */
export function reachesOutside(name: string): void {
  const end = Date.now() + 20_000 * TIME_FACTOR;
  for (const address of [OUTSIDE.ipv4, OUTSIDE.ipv6]) {
    while (!ask(name, 'udp', address, 80, { patience: 500 }).startsWith('out'))
      if (Date.now() > end) throw new Error(`${name} never reached ${address}`);
  }
}

const SERVER = `
const [name, ports] = process.argv.slice(1);
const plain = (address) => address.replace(/^::ffff:/, '');
let waiting = 0;
const ready = () => { if (--waiting === 0) console.log('ready'); };
for (const port of ports.split(',').map(Number)) {
  waiting += 2;
  require('node:net').createServer((peer) => {
    peer.on('error', () => undefined).end(name + ' ' + plain(peer.remoteAddress));
  }).listen(port, '::', ready);
  const udp = require('node:dgram').createSocket('udp6');
  udp.on('message', (_, peer) => udp.send(name + ' ' + plain(peer.address), peer.port, peer.address));
  udp.bind(port, ready);
}`;

const CLIENT = `
const [protocol, address, port, sourcePort, patience] = process.argv.slice(1);
const tell = (text) => { require('node:fs').writeSync(1, text); process.exit(0); };
setTimeout(() => tell('nothing'), Number(patience));
if (protocol === 'tcp') {
  const peer = require('node:net').connect(Number(port), address);
  peer.on('data', (text) => tell(text.toString())).on('error', (error) => tell(error.code));
} else {
  const udp = require('node:dgram').createSocket(address.includes(':') ? 'udp6' : 'udp4');
  udp.on('message', (text) => tell(text.toString())).on('error', (error) => tell(error.code));
  udp.bind(Number(sourcePort), () => udp.send('?', Number(port), address));
}`;

/** Makes a variant the one that every `iptables` of this test's host leads to, as update-alternatives does. */
export function useHostVariant(variant: Variant): void {
  for (const family of FAMILIES) {
    for (const action of ['', '-save', '-restore']) {
      point(`${family}${action}`, `/usr/sbin/${family}-${variant}${action}`);
    }
  }
  changedSince = variant === 'legacy' ? changedLegacyTables() : changedTables();
}

/** Families whose tables had a commit since the last call, even of the same rules. */
export function commits(): string[] {
  return changedSince();
}

const FAMILIES = ['iptables', 'ip6tables'] as const;
let changedSince: () => string[] = () => [];

/** iptables-legacy-restore is called through a script that notes each commit. */
function changedLegacyTables(): () => string[] {
  rmSync(COMMITS, { recursive: true, force: true });
  mkdirSync(COMMITS);
  for (const family of FAMILIES) {
    const script = `${COMMITS}/${family}-legacy-restore`;
    const note = `#!/bin/sh\ntouch ${COMMITS}/${family}\nexec /usr/sbin/${family}-legacy-restore "$@"\n`;
    writeFileSync(script, note, { mode: 0o755 });
    point(`${family}-restore`, script);
  }
  return () => {
    const changed = FAMILIES.filter((family) => existsSync(`${COMMITS}/${family}`));
    for (const family of changed) unlinkSync(`${COMMITS}/${family}`);
    return changed;
  };
}

const COMMITS = '/run/commits';

/** Objects of nf_tables have handles that are never used again: a rule deleted and put back is another one. */
function changedTables(): () => string[] {
  const look = (): string[] =>
    ['ip', 'ip6'].map((family) =>
      run('nft', '-a', 'list', 'ruleset', family).replaceAll(/packets \d+ bytes \d+/g, ''),
    );
  let before = look();
  return () => {
    const now = look();
    const changed = FAMILIES.filter((_, at) => now[at] !== before[at]);
    before = now;
    return changed;
  };
}

function point(name: string, program: string): void {
  unlinkSync(`/etc/alternatives/${name}`);
  symlinkSync(program, `/etc/alternatives/${name}`);
}

/** A call that must succeed; returns its parsed stdout, and its stderr. */
export function good(
  name: PluginName,
  command: string,
  attachment: Attachment,
  config: object,
): { result: unknown; log: string } {
  const outcome = runPluginProcess(name, { command, env: variables(attachment), stdin: config });
  if (outcome.exitCode !== 0)
    throw new Error(`${name} ${command} failed: ${outcome.stdout}${outcome.stderr}`);
  return { result: outcome.stdout === '' ? undefined : JSON.parse(outcome.stdout), log: outcome.stderr };
}

/** A call that must fail; gives the error document. */
export function bad(name: PluginName, command: string, attachment: Attachment, config: object): CniErrorJson {
  return errorOf(runPluginProcess(name, { command, env: variables(attachment), stdin: config }), name);
}

/** nft(8) with arguments as a person would type them. */
export function nft(line: string): string {
  return run('nft', line);
}

/** Lines of `nft list`, without indentation. */
export function listed(what: string): string[] {
  return nft(`list ${what}`)
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

/** Of nf_tables: grows with every transaction of this host. */
export function generation(): number {
  using connection = NftConnection.open();
  return connection.generation();
}
