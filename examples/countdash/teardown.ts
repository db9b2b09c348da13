import { existsSync, readdirSync, rmSync, rmdirSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { parseNetworkList } from '../../conflist/network-list.ts';
import { deleteNetwork, type Runtime } from '../../conflist/runtime.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import {
  type Xtables,
  removeEmptyTables,
  removeFromAdminChain,
  removeSharedChains,
  removeSharedTables,
} from './shared-rules.ts';
import { NETNS_FOLDER, compareFootprints, netnsFolderIsMounted, takeFootprint } from './footprint.ts';
import { linesOf, tool, toolIfThere, tryTool } from './tool.ts';
import { NAMES, namespacePath, nomadAttachment, nomadRemoval } from './plan.ts';
import { removeState, type State } from './state.ts';

/** Text in the command lines of the example's processes. */
export const PROCESS_MARK = 'countdash-child';
/** The kernel removes the interfaces of a deleted namespace asynchronously. */
const SETTLE_MS = 5_000;

/** The runtime that drives the plugins for the example: its results stay in its own folder. */
export function runtimeOf(binDirs: readonly string[], warn: (line: string) => void): Runtime {
  return { binDirs, cacheDir: NAMES.folder, environment: process.env, warn };
}

/**
 * Removes everything that `state` lists, whether it was created or not. Runs every step even when an earlier one fails, and warns about each
 * failure. Also cleans up after a run that was killed. The processes must have ended.
 */
export function tearDown(state: State, warn: (line: string) => void): void {
  const attempt = (step: () => void): void => {
    try {
      step();
    } catch (thrown) {
      const { message, details } = toCniError(thrown);
      warn(details === undefined ? message : `${message}; ${details}`);
    }
  };
  const list = parseNetworkList(state.list, "the example's network list");
  for (const group of state.groups.toReversed()) {
    attempt(() =>
      deleteNetwork(runtimeOf(state.binDirs, warn), list, nomadRemoval(nomadAttachment(group, state.dns))),
    );
  }
  for (const { netns } of state.groups) attempt(() => removeNamespace(netns));
  attempt(removeBridge);
  for (const subnet of state.subnets)
    attempt(() => removeFromAdminChain(programFor(subnet), NAMES.bridge, subnet));
  attempt(() => removeSharedChains('iptables', state.before.rules));
  attempt(() => removeSharedChains('ip6tables', state.before.rules));
  attempt(() => removeSharedTables(state.before.rules));
  attempt(() => restoreSettings(state));
  attempt(() => removeEmptyFolder(state, '/etc/netns'));
  attempt(() => removeEmptyFolder(state, '/run/weft/locks'));
  attempt(() => removeEmptyFolder(state, '/run/weft'));
  attempt(() => removeLeaseFolder(state));
  attempt(() => removeNetnsFolder(state));
  attempt(() => removeEmptyTables(state.before.tables));
  attempt(removeState);
}

export function programFor(subnet: string): Xtables {
  return subnet.includes(':') ? 'ip6tables' : 'iptables';
}

/**
 * What the example left on the host: empty when the host is as before. Differences without the example's names come from other programs,
 * or are shared chains that other containers use now, and are listed separately.
 */
export async function remains(state: State): Promise<{ ours: string[]; others: string[] }> {
  const deadline = Date.now() + SETTLE_MS;
  for (;;) {
    const { added, removed } = compareFootprints(state.before, takeFootprint(PROCESS_MARK));
    const differences = [
      ...added.map((line) => `left: ${line}`),
      ...removed.map((line) => `missing: ${line}`),
    ];
    if (differences.length === 0 || Date.now() > deadline) {
      const ours = differences.filter((line) => isOurs(line, state));
      return { ours, others: differences.filter((line) => !ours.includes(line)) };
    }
    await pause(100);
  }
}

function isOurs(line: string, { subnets, groups }: State): boolean {
  const marks = [
    NAMES.bridge,
    NAMES.network,
    NAMES.namespaces,
    PROCESS_MARK,
    ...subnets.map((subnet) => subnet.replace(/0?\/.*/, '')),
  ];
  return [...marks, ...groups.map(({ allocId }) => allocId)].some((mark) => line.includes(mark));
}

function removeNamespace(name: string): void {
  if (existsSync(namespacePath(name))) tool('ip', ['netns', 'del', name]);
}

function removeBridge(): void {
  if (bridgeExists()) tool('ip', ['link', 'del', NAMES.bridge]);
}

/** Uses `ip link`: /sys shows the network namespace in which it was mounted. */
export function bridgeExists(): boolean {
  return toolIfThere('ip', ['link', 'show', 'dev', NAMES.bridge]) !== '';
}

/** Restores forwarding only when no interface was added in the meantime: a new one may need it. */
function restoreSettings({ before }: State): void {
  const names = (lines: readonly string[]): string =>
    lines
      .map((line) => line.split(' ')[0] ?? '')
      .sort()
      .join(' ');
  const now = linesOf(toolIfThere('ip', ['-br', 'link', 'show'])).map((line) =>
    line.replace(/@.*/, '').trim(),
  );
  if (names(now) !== names(before.interfaces)) return;
  for (const setting of before.settings) {
    const [name, value] = setting.split(' = ');
    const file = `/proc/sys/${name}`;
    if (value !== 'absent' && value !== undefined && existsSync(file)) writeFileSync(file, value);
  }
}

/** Keeps the directory when it holds other namespaces. Without -n, umount leaves a directory of its own in /run. */
function removeNetnsFolder(state: State): void {
  const isNew = !state.before.mounts.includes(NETNS_FOLDER) && netnsFolderIsMounted();
  if (isNew && readdirSync(NETNS_FOLDER).length === 0) tryTool('umount', ['-n', NETNS_FOLDER]);
  if (!netnsFolderIsMounted()) removeEmptyFolder(state, NETNS_FOLDER);
}

/** Nomad's network keeps its leases there; without any, the rest goes if the directory is the example's. */
function removeLeaseFolder(state: State): void {
  const folder = '/var/lib/cni/networks/nomad';
  if (state.before.files.includes(`${folder}/`) || !existsSync(folder)) return;
  for (const name of readdirSync(folder).filter((one) => /^(lock|last_reserved_ip\.\d+)$/.test(one)))
    rmSync(`${folder}/${name}`);
  for (const empty of [folder, '/var/lib/cni/networks', '/var/lib/cni/results', '/var/lib/cni'])
    removeEmptyFolder(state, empty);
}

/** Removes a directory that did not exist before the example and is empty. */
function removeEmptyFolder({ before }: State, folder: string): void {
  if (before.files.some((file) => file.startsWith(`${folder}/`)) || !existsSync(folder)) return;
  try {
    rmdirSync(folder);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOTEMPTY') throw thrown;
  }
}
