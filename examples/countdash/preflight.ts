import { existsSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { findPlugin } from '../../shared/cni/delegate.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { findProgram, isExecutable } from '../../shared/process/run-program.ts';
import { takeRules } from './footprint.ts';
import { portHolders, portRedirections } from './host.ts';
import { readState, removeState } from './state.ts';
import { missingForNomad } from './nomad/run-job.ts';
import type { Options } from './options.ts';
import { NAMES } from './plan.ts';
import { bridgeExists, tearDown } from './teardown.ts';
import { linesOf, toolIfThere } from './tool.ts';

/** What each tool is for, and the Debian package that brings it. */
const TOOLS = [
  { name: 'ip', needed: 'makes the namespaces', from: 'iproute2' },
  { name: 'iptables', needed: "makes Nomad's NOMAD-ADMIN chain", from: 'iptables' },
  { name: 'iptables-save', needed: 'shows that no rule is left behind', from: 'iptables' },
];

const TOOLS_FOR_IPV6 = [
  { name: 'ip6tables', needed: "makes Nomad's NOMAD-ADMIN chain for IPv6", from: 'iptables' },
];

const TOOLS_FOR_ENVOY = [
  { name: 'setpriv', needed: 'ends its processes together with the example', from: 'util-linux' },
];

/** Throws when the example cannot run on this host. @returns the options with the path of Envoy, when it is wanted */
export function checkHost(binDirs: readonly string[], plugins: readonly string[], options: Options): Options {
  const { dualStack, envoy: wanted } = options;
  const envoy = wanted === '' ? findProgram('envoy') : wanted;
  refuse([
    ...missingRights(),
    ...missingTools([
      ...TOOLS,
      ...(dualStack ? TOOLS_FOR_IPV6 : []),
      ...(wanted === undefined ? [] : TOOLS_FOR_ENVOY),
    ]),
    ...(options.nomad ? missingForNomad(envoy) : wanted === undefined ? [] : missingEnvoy(envoy)),
    ...missingPlugins(binDirs, plugins),
    ...(dualStack ? missingIpv6() : []),
  ]);
  return { ...options, envoy };
}

/** Throws when the port is in use. */
export function checkPort(port: number): void {
  refuse(takenPort(port));
}

function refuse(problems: readonly string[]): void {
  if (problems.length === 0) return;
  throw new CniError(
    CniCode.IoFailure,
    `this host is not ready for the example:\n${problems.map((line) => `  - ${line}`).join('\n')}`,
  );
}

/** Cleans up after a run that was killed; none runs, see {@link lockExample}. Throws when another program uses the example's names. */
export async function clearLeftovers(log: (line: string) => void): Promise<void> {
  const state = readState();
  if (state !== undefined) {
    log('cleaning up after an earlier run that was killed');
    for (const { netns } of state.groups) await endProcesses(netns);
    tearDown(state, log);
  }
  removeState();
  if (bridgeExists()) {
    throw new CniError(
      CniCode.IoFailure,
      `interface ${NAMES.bridge} exists and was not created by the example`,
      {
        details: `if it is unused, delete it: ip link del ${NAMES.bridge}`,
      },
    );
  }
}

/** The children of a killed run end by themselves; processes that an operator started in the namespace are killed. */
async function endProcesses(netns: string): Promise<void> {
  const pids = (): number[] => linesOf(toolIfThere('ip', ['netns', 'pids', netns])).map(Number);
  for (const deadline = Date.now() + 2_000; pids().length > 0 && Date.now() < deadline;) await pause(50);
  for (const pid of pids()) process.kill(pid, 'SIGKILL');
}

function missingRights(): string[] {
  return process.getuid?.() === 0 ? [] : ['the example creates network namespaces and rules; run it as root'];
}

function missingEnvoy(program: string | undefined): string[] {
  if (program === undefined) return ['"envoy" is not in PATH; name it with --envoy PATH'];
  return isExecutable(program) ? [] : [`--envoy ${program}: no such executable`];
}

function missingTools(tools: typeof TOOLS): string[] {
  return tools
    .filter(({ name }) => findProgram(name) === undefined)
    .map(
      ({ name, needed, from }) =>
        `"${name}" is missing; it ${needed} (Debian and Ubuntu: apt install ${from})`,
    );
}

function missingIpv6(): string[] {
  return existsSync('/proc/sys/net/ipv6') ? [] : ['this kernel runs without IPv6, which --dual-stack needs'];
}

function missingPlugins(binDirs: readonly string[], plugins: readonly string[]): string[] {
  const absent = plugins.filter((name) => {
    try {
      findPlugin(name, binDirs);
      return false;
    } catch {
      return true;
    }
  });
  return absent.length === 0
    ? []
    : [`no ${absent.join(', ')} in ${binDirs.join(', ')}; name the plugins' directory with --bin-dir`];
}

function takenPort(port: number): string[] {
  const holders = portHolders(port);
  const rules = holders.length > 0 ? [] : portRedirections(takeRules(), port);
  const advice = 'stop it, or give the page another port with --port';
  return [
    ...holders.map((holder) => `${holder}; ${advice}`),
    ...rules
      .slice(0, 1)
      .map((rule) => `port ${port} is mapped to a container already, by the rule "${rule}"; ${advice}`),
  ];
}
