import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import type { PLUGINS } from '../../plugins/index.ts';
import { hostState } from '../support/host-state.ts';
import { runPluginProcess, variables, type ProcessOutcome } from '../support/plugin.ts';
import { CASES, previousResult } from './cases.ts';

export const NS = '/run/netns/pod';
export type Name = (typeof PLUGINS)[number]['name'];

export function prepareHost(): void {
  sh(
    'ip netns add pod && ip -n pod link set lo up; mkdir -p /var/lib/cni/results /var/run/cni/conformance /etc/netns',
  );
  sh('iptables -N NOMAD-ADMIN; ip6tables -N NOMAD-ADMIN');
}

interface Options {
  readonly id?: string;
  readonly config?: Readonly<Record<string, unknown>>;
  readonly prevResult?: object;
  readonly netns?: string;
  readonly args?: string;
  readonly path?: string;
  /** As in ProcessCall. */
  readonly patience?: number;
}

/** One call with the plugin's example configuration. */
export function call(name: Name, command: string, options: Options = {}): ProcessOutcome {
  const { args: own = '', chained, config: valid } = CASES[name];
  const { id = 'c', config = valid, netns = NS, args = command === 'DEL' ? '' : own, patience } = options;
  const prevResult = options.prevResult ?? (chained ? previousResult('1.1.0', NS) : undefined);
  return runPluginProcess(name, {
    command,
    env: { ...variables({ id, netns, args }), ...(options.path === undefined ? {} : { PATH: options.path }) },
    stdin: { cniVersion: '1.1.0', name: 'conformance', type: name, ...config, prevResult },
    ...(patience === undefined ? {} : { patience }),
  });
}

export function succeeds(outcome: ProcessOutcome, what = ''): ProcessOutcome {
  assert.is(outcome.exitCode, 0, `${what}: ${outcome.stdout}${outcome.stderr}`);
  return outcome;
}

/** Lines that tell what the host and the container's namespace hold. */
export function state(): string[] {
  const inside = 'ip -o link; ip -o addr; ip route; nft -s list ruleset; iptables-save | grep ^-A';
  const pod = sh(`ip netns exec pod sh -c '${inside}' 2>/dev/null | sed "s/valid_lft.*//" || true`);
  return Object.entries({ ...hostState(), pod })
    .flatMap(([section, text]) => text.split('\n').map((line) => `${section}: ${line}`))
    .filter((line) => !/last_reserved_ip|^(links|addresses|sysctls): .*nomad/.test(line));
}

/** The host after an ADD and a DEL of the plugin. */
export function clean(name: Name): string[] {
  succeeds(call(name, 'ADD'));
  succeeds(call(name, 'DEL'));
  return withoutIds(state());
}

/** The kernel numbers a namespace when an interface refers to it. */
export function withoutIds(lines: readonly string[]): string[] {
  return lines.map((line) => line.replace(/ \(id: \d+\)$/, ''));
}

export function changes(before: readonly string[], after: readonly string[]): string[] {
  return [
    ...before.filter((line) => !after.includes(line)).map((line) => `- ${line}`),
    ...after.filter((line) => !before.includes(line)).map((line) => `+ ${line}`),
  ];
}

export function sh(script: string): string {
  return execFileSync('sh', ['-c', script], { encoding: 'utf8' });
}
