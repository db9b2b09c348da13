import { isDeepStrictEqual } from 'node:util';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import { removeCachedResult, writeCachedResult } from '../../conflist/result-cache.ts';
import { nomadRemoval } from '../../examples/countdash/plan.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { sh } from '../e2e/support/client-host.ts';
import { addNetns, deleteNetns } from '../support/netns.ts';
import { addressesOf, hostInterface, type Container } from './container.ts';
import { Violation, type Model } from './model.ts';
import { ChainFailure, runChain, type ChainCall, type Verb } from './runtime.ts';
import type { World } from './world.ts';

/** The directory of the runtime's cache. */
export const CACHE = '/var/lib/cni';

/** What an operation works on. */
export interface Host {
  readonly world: World;
  readonly model: Model;
  /** Containers of the past, with what was known of them: for a DEL that comes late. */
  readonly deleted: Container[];
  /** Number of containers so far. */
  made: number;
}

type Changes = Partial<Pick<ChainCall, 'list' | 'attachment' | 'prevResult' | 'path' | 'edit'>>;

/** A call of all plugins of the container's list, as Nomad makes it. @returns result and stderr */
export function call(
  { world }: Host,
  verb: Verb,
  container: Container,
  changes: Changes = {},
): ReturnType<typeof runChain> {
  const { attachment, result } = container;
  return runChain({
    verb,
    list: world.lists[container.list],
    attachment: verb === 'DEL' ? nomadRemoval(attachment) : attachment,
    prevResult: result,
    path: world.path,
    ...changes,
  });
}

/** ADD of a container that is new, running, or lost its namespace. */
export async function add(host: Host, container: Container): Promise<void> {
  const { model, world } = host;
  const { result: before, isLost } = container;
  if (before === undefined || isLost) addNetns(container.id);
  container.isLost = false;
  const { result, stderr } = await call(host, 'ADD', container);
  if (stderr !== '') throw new Violation(`ADD of ${container.id} prints on stderr: ${stderr}`);
  container.result = result;
  model.containers.add(container);
  if (result !== undefined)
    writeCachedResult(CACHE, world.lists[container.list], container.attachment, result);
}

/** A second ADD answers what the first one answered. */
export async function addAgain(host: Host, container: Container): Promise<void> {
  const before = container.result;
  await add(host, container);
  if (!isDeepStrictEqual(container.result, before))
    throw new Violation(
      `ADD again of ${container.id} gives another result\n${JSON.stringify(before)}\n${JSON.stringify(container.result)}`,
    );
}

export async function check(host: Host, container: Container): Promise<void> {
  const { stderr } = await call(host, 'CHECK', container);
  if (stderr !== '') throw new Violation(`CHECK of ${container.id} prints on stderr: ${stderr}`);
}

/** A list, default or PATH that changed after ADD must not fail a healthy container. */
const CHANGED: Readonly<Record<string, (host: Host) => Changes>> = {
  'with another MTU': () => ({ edit: (config) => config['type'] === 'bridge' && (config['mtu'] = 1400) }),
  'with hairpin mode': () => ({
    edit: (config) => config['type'] === 'bridge' && (config['hairpinMode'] = true),
  }),
  'without ipMasq': () => ({ edit: (config) => config['type'] === 'bridge' && (config['ipMasq'] = false) }),
  'with another admin chain': () => ({
    edit: (config) => config['type'] === 'firewall' && (config['iptablesAdminChainName'] = 'OTHER-ADMIN'),
  }),
  'without snat': () => ({ edit: (config) => config['type'] === 'portmap' && (config['snat'] = false) }),
  'with the list that was edited to one that ADD rejects': () => ({ edit: reject }),
  "with the other iptables variant's PATH": ({ world }) => ({ path: world.otherPath }),
};
export const CHANGES = Object.keys(CHANGED);

export async function checkChanged(host: Host, container: Container, how: string): Promise<void> {
  await call(host, 'CHECK', container, CHANGED[how]?.(host));
}

/** Arguments that a DEL may come with. `other` is a running container. */
const WAYS: Readonly<
  Record<string, (host: Host, container: Container, other: Container | undefined) => Changes>
> = {
  'as Nomad': () => ({}),
  'with CNI_ARGS': (_, { attachment }) => ({ attachment }),
  'without prevResult': () => ({ prevResult: undefined }),
  'without CNI_NETNS': (_, { attachment }) => ({ attachment: { ...attachment, netns: '' } }),
  'without CNI_NETNS and prevResult': (_, { attachment }) => ({
    attachment: { ...attachment, netns: '' },
    prevResult: undefined,
  }),
  'with a path that does not exist': (_, container) => withPath(container, '/run/netns/none'),
  'with a path that is a regular file': (_, container) => withPath(container, regularFile()),
  'with the namespace of another container': (_, container, other) =>
    other === undefined ? {} : withPath(container, other.attachment.netns),
  'with the result of another container': (_, __, other) => ({ prevResult: other?.result }),
  'with the list that was edited to one that ADD rejects': () => ({ edit: reject }),
  'with another bridge and dataDir': () => ({ edit: move }),
  'without port mappings': (_, { attachment }) => ({
    attachment: { ...attachment, args: [], capabilityArgs: {} },
  }),
  'with another list': ({ world }, { list }) => ({
    list: list === 'nomad-tproxy' ? world.lists[list] : world.lists['nomad-tproxy'],
  }),
  "with the other iptables variant's PATH": ({ world }) => ({ path: world.otherPath }),
};
export const DEL_WAYS = Object.keys(WAYS);

function withPath({ attachment }: Container, netns: string): Changes {
  return { attachment: { ...attachment, args: [], netns } };
}

function regularFile(): string {
  writeFileSync('/run/regular', '');
  return '/run/regular';
}

function move(config: Record<string, unknown>): void {
  if (config['type'] !== 'bridge') return;
  config['bridge'] = 'moved';
  config['ipam'] = { ...(config['ipam'] as object), dataDir: '/var/lib/cni/moved' };
}

/** Values that ADD rejects, one for every plugin that has settings. */
function reject(config: Record<string, unknown>): void {
  if (config['type'] === 'bridge') Object.assign(config, { vlan: 5000, mtu: '1500', ipMasqBackend: 'none' });
  if (config['type'] === 'firewall')
    Object.assign(config, { iptablesAdminChainName: 5, ingressPolicy: 'none' });
  if (config['type'] === 'portmap')
    Object.assign(config, { snat: 'yes', runtimeConfig: { portMappings: 'all' } });
  if (config['type'] === 'consul-cni') Object.assign(config, { ipv6: 'perhaps' });
}

/** DEL, and the end of the namespace. Nothing may be left on the host, nor inside if DEL could know that the namespace is this container's. */
export async function del(host: Host, container: Container, way: string, other?: Container): Promise<void> {
  const changes = WAYS[way]?.(host, container, other) ?? {};
  await call(host, 'DEL', container, changes);
  const isKnown = (changes.attachment ?? container.attachment).netns === container.attachment.netns;
  const isOwnResult = !('prevResult' in changes) || changes.prevResult === undefined;
  if (isKnown && isOwnResult && !container.isLost) await host.model.verifyEmpty(container.id);
  forget(host, container);
}

function forget({ model, deleted, world }: Host, container: Container): void {
  const { attachment } = container;
  removeCachedResult(CACHE, world.lists[container.list].name, attachment);
  if (!container.isLost) deleteNetns(container.id);
  model.containers.delete(container);
  deleted.push(container);
  if (deleted.length > 20) deleted.shift();
}

/** DEL of a container that is gone for long, whose address may be another's by now. */
export async function delLate(host: Host, container: Container, way: string): Promise<void> {
  await call(host, 'DEL', container, WAYS[way]?.(host, container, undefined));
}

/** The namespace disappears without DEL, as when a node's runtime crashes. */
export async function lose(container: Container): Promise<void> {
  deleteNetns(container.id);
  container.isLost = true;
  const link = `/sys/class/net/${hostInterface(container.result as CniResult)}`;
  for (let left = 500; existsSync(link); left -= 1) {
    if (left === 0) throw new Error(`${link} outlives its namespace`);
    await wait(10);
  }
}

/** GC with everything valid that is not lost, on the one list that has every plugin. */
export async function collect(host: Host): Promise<void> {
  const { model, world } = host;
  const valid = ['foreign', ...[...model.containers].filter(({ isLost }) => !isLost).map(({ id }) => id)].map(
    (containerID) => ({ containerID, ifname: 'eth0' }),
  );
  const attachment = { containerId: '', netns: '', ifname: '', args: [], capabilityArgs: {} };
  await runChain({
    verb: 'GC',
    list: world.lists['nomad-tproxy'],
    attachment,
    path: world.path,
    keys: { 'cni.dev/valid-attachments': valid },
  });
  for (const container of [...model.containers].filter(({ isLost }) => isLost)) forget(host, container);
}

/** ADD of a new container with a port that a running one publishes: it fails, and DEL removes what earlier plugins of the list did. */
export async function conflict(host: Host, container: Container): Promise<void> {
  addNetns(container.id);
  const failure = await failureOf(call(host, 'ADD', container));
  if (failure?.plugin !== 'portmap' || failure.code !== 11)
    throw new Violation(`ADD of ${container.id} with a port in use: ${failure?.message ?? 'success'}`);
  await del(host, container, 'without prevResult');
}

const DAMAGES: Readonly<Record<string, (container: Container, result: CniResult) => void>> = {
  'without its pair': (_, result) => void sh(`ip link del ${hostInterface(result)}`),
  'with eth0 down': ({ id }) => void sh(`ip -n ${id} link set eth0 down`),
  'without its address': ({ id }, result) =>
    void sh(`ip -n ${id} addr del ${result.ips[0]?.address ?? ''} dev eth0`),
  'without its default route': ({ id }) => void sh(`ip -n ${id} route del default`),
  'without its lease': (_, result) => rmSync(`/run/cni/nomad/${addressesOf(result)[0] ?? ''}`),
};
export const DAMAGE_KINDS = Object.keys(DAMAGES);

/** CHECK reports the damage, ADD repairs it. */
export async function repair(host: Host, container: Container, kind: string): Promise<void> {
  DAMAGES[kind]?.(container, container.result as CniResult);
  if ((await failureOf(call(host, 'CHECK', container))) === undefined)
    throw new Violation(`CHECK of ${container.id} ${kind} succeeds`);
  await add(host, container);
}

/** Several calls for one container at once, which no runtime makes on purpose; one more call afterwards must settle it. */
export async function race(
  host: Host,
  container: Container,
  verbs: readonly Verb[],
  last: Verb,
): Promise<void> {
  const outcomes = await Promise.all(verbs.map((verb) => failureOf(call(host, verb, container))));
  for (const failure of outcomes) {
    if (failure !== undefined && (failure.code < 1 || /bug in the/.test(failure.message))) throw failure;
  }
  if (last === 'ADD') await add(host, container);
  else await del(host, container, 'as Nomad');
}

async function failureOf(work: Promise<unknown>): Promise<ChainFailure | undefined> {
  try {
    await work;
    return undefined;
  } catch (thrown) {
    if (thrown instanceof ChainFailure) return thrown;
    throw thrown;
  }
}
