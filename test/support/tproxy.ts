import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import * as assert from 'uvu/assert';
import type { CniErrorJson } from '../../shared/cni/errors.ts';
import {
  errorOf,
  runPluginProcess,
  startPluginProcess,
  variables,
  type ProcessCall,
  type ProcessOutcome,
} from './plugin.ts';

/** Every way of holding the rules; each test of behaviour runs on all of them. */
export interface TestedBackend {
  readonly name: 'iptables-nft' | 'iptables-legacy' | 'nftables';
  /** The plugin's option. */
  readonly backend: 'iptables' | 'nftables';
  /** PATH: decides which variant `iptables` is. */
  readonly path: string;
}

const SYSTEM_PATH = '/usr/sbin:/usr/bin:/sbin:/bin';
const LEGACY_FOLDER = '/run/only-legacy';

export const BACKENDS: readonly TestedBackend[] = [
  { name: 'iptables-nft', backend: 'iptables', path: SYSTEM_PATH },
  { name: 'iptables-legacy', backend: 'iptables', path: `${LEGACY_FOLDER}:${SYSTEM_PATH}` },
  { name: 'nftables', backend: 'nftables', path: SYSTEM_PATH },
];

export function backendNamed(name: TestedBackend['name']): TestedBackend {
  const found = BACKENDS.find((one) => one.name === name);
  assert.ok(found);
  return found;
}

/** As on a host whose alternatives point to legacy. To be called once, before the first call of a plugin. */
export function makeLegacyFolder(): void {
  if (existsSync(LEGACY_FOLDER)) return;
  mkdirSync(LEGACY_FOLDER);
  for (const name of ['iptables', 'ip6tables'].flatMap((tool) => [tool, `${tool}-save`, `${tool}-restore`])) {
    symlinkSync('/usr/sbin/xtables-legacy-multi', `${LEGACY_FOLDER}/${name}`);
  }
}

export function sh(command: string): string {
  return execFileSync('sh', ['-c', command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Network namespaces by name, each new; the host of the test file ends with its process. */
let namespaces = 0;
export function newNamespace(): string {
  const name = `alloc${++namespaces}`;
  sh(`ip netns add ${name} && ip -n ${name} link set lo up`);
  return name;
}

export const REQUEST = {
  ConsulDNSIP: '192.168.1.117',
  ConsulDNSPort: 8600,
  ProxyUserID: '101',
  ProxyInboundPort: 9999,
  ProxyOutboundPort: 15001,
  ExcludeInboundPorts: ['9002'],
  ExcludeOutboundPorts: null,
  ExcludeOutboundCIDRs: null,
  ExcludeUIDs: null,
  NetNS: '/var/run/docker/netns/nonsense-ns',
  IptablesProvider: null,
};

export interface Call {
  readonly netns: string;
  readonly on?: TestedBackend;
  /** CONSUL_IPTABLES_CONFIG, or the whole of CNI_ARGS when it is text. */
  readonly request?: object | string;
  /** Keys of the network configuration besides the usual ones; `undefined` takes one away. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly id?: string;
  readonly plugin?: 'consul-cni' | 'consul-tproxy';
  /** As in ProcessCall. */
  readonly refused?: string;
}

/** One call as Nomad makes it. */
export function call(command: string, options: Call): ProcessOutcome {
  return runPluginProcess(options.plugin ?? 'consul-cni', processCall(command, options));
}

/** The same without waiting. */
export function startCall(command: string, options: Call): Promise<ProcessOutcome> {
  return startPluginProcess(options.plugin ?? 'consul-cni', processCall(command, options));
}

function processCall(command: string, options: Call): ProcessCall {
  const { netns, on = backendNamed('iptables-nft'), request = REQUEST, id = 'alloc-1' } = options;
  const args = typeof request === 'string' ? request : nomadArgs(request);
  const path = netns.startsWith('/') || netns === '' ? netns : `/var/run/netns/${netns}`;
  const config = {
    cniVersion: '0.4.0',
    name: 'nomad',
    type: 'consul-cni',
    log_level: 'debug',
    backend: on.backend,
    ...(command === 'ADD' || command === 'CHECK' ? { prevResult: PREVIOUS } : {}),
    ...options.config,
  };
  return {
    command,
    env: { ...variables({ id, netns: path, args: command === 'DEL' ? '' : args }), PATH: on.path },
    stdin: config,
    ...(options.refused === undefined ? {} : { refused: options.refused }),
  };
}

export const PREVIOUS = {
  cniVersion: '0.4.0',
  interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:02', sandbox: '/var/run/netns/x' }],
  ips: [{ version: '4', address: '172.26.64.2/20', gateway: '172.26.64.1', interface: 0 }],
  routes: [{ dst: '0.0.0.0/0' }],
  dns: {},
};

export function nomadArgs(request: object): string {
  return `IgnoreUnknown=true;NOMAD_ALLOC_ID=x;NOMAD_JOB_ID=a=b;CONSUL_IPTABLES_CONFIG=${JSON.stringify(request)}`;
}

/** Exit 0. @returns what stderr says, a warning a line */
export function succeeds(command: string, options: Call): string[] {
  const outcome = call(command, options);
  assert.is(outcome.exitCode, 0, `${command}: ${outcome.stdout}${outcome.stderr}`);
  return outcome.stderr.split('\n').filter((line) => line !== '');
}

export function fails(command: string, options: Call): CniErrorJson {
  return errorOf(call(command, options), command);
}

/** A whole table as the backend's own tool prints it, without counters and comments, as the vectors have it. */
export function saved(
  netns: string,
  on: TestedBackend,
  family: 'ipv4' | 'ipv6' = 'ipv4',
  table = 'nat',
): string[] {
  const tool = `${family === 'ipv4' ? 'iptables' : 'ip6tables'}-${on.name === 'iptables-legacy' ? 'legacy' : 'nft'}-save`;
  return sh(`ip netns exec ${netns} ${tool} -t ${table}`)
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.replace(/^(:\S+ \S+) \[\d+:\d+\]$/, '$1'));
}

/** All rules and all chains of ours in a namespace, whatever holds them, tool by tool; '' when there are none. */
export function leftovers(netns: string): string {
  const saves = ['nft', 'legacy'].flatMap((variant) => [
    `iptables-${variant}-save`,
    `ip6tables-${variant}-save`,
  ]);
  const tools = [...saves, 'nft -s list table inet consul_tproxy 2>/dev/null'];
  const script = tools.map((tool) => `echo "== ${tool}"; ${tool}`).join('; ');
  const sections = sh(`ip netns exec ${netns} sh -c '${script} || true'`).split(/^== /m);
  return sections
    .flatMap((section) => {
      const [tool = '', ...lines] = section.split('\n');
      const ours = lines.filter((line) => /^(-A|\t)|CONSUL/.test(line));
      return ours.length === 0 ? [] : [`# ${tool}`, ...ours.map((line) => line.replace(/ \[\d+:\d+\]$/, ''))];
    })
    .join('\n');
}

/** `nft list table` of our table, chain by chain: counters out. */
export function nftChains(netns: string): Map<string, string[]> {
  const chains = new Map<string, string[]>();
  let current: string[] = [];
  for (const line of sh(`ip netns exec ${netns} nft -s list table inet consul_tproxy`).split('\n')) {
    const name = /^\tchain (\S+) \{$/.exec(line)?.[1];
    if (name !== undefined) chains.set(name, (current = []));
    else if (line.startsWith('\t\t')) current.push(line.trim().replace('counter ', ''));
  }
  return chains;
}
