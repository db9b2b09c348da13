/**
 * A host with an allocation behind a mapped port, and a client outside of it:
 *
 *     NAME-out  192.0.2.2  ---  192.0.2.1  NAME  bridge  ---  NAME-in, listens on 9002
 *
 * All three are network namespaces; the plugins run in the middle one.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { inNamespace } from '../../../shared/kernel/namespace.ts';
import { makeNamespace } from '../chain/crowd.ts';
import { runChain } from '../chain/invoke.ts';
import { sh } from '../chain/machine.ts';
import type { Backend, List, PluginSuite } from '../chain/suites.ts';
import { fillMappings } from './fill.ts';

const PORT = 9002;
const HOST = '192.0.2.1';

export interface Scene {
  readonly suite: PluginSuite['name'];
  readonly mappings: number;
  /** Microseconds per connection. */
  readonly connect: (count: number) => number;
  readonly close: () => void;
}

/** @param mappings on the host, the measured one, which comes last, included */
export async function makeScene(
  suite: PluginSuite,
  list: List,
  backend: Backend,
  mappings: number,
): Promise<Scene> {
  const name = `${suite.name}-${mappings}`;
  const [host, outside, inside] = [name, `${name}-out`, `${name}-in`].map(makeNamespace) as [
    string,
    string,
    string,
  ];
  sh(`
    ip -n ${name} link set lo up
    ip -n ${name} link add up0 type veth peer name eth0 netns ${name}-out
    ip -n ${name} addr add ${HOST}/24 dev up0
    ip -n ${name} link set up0 up
    ip -n ${name}-out addr add 192.0.2.2/24 dev eth0
    ip -n ${name}-out link set eth0 up`);
  inNamespace(host, () => {
    const portmap = { ...list, plugins: list.plugins.filter(({ type }) => type === 'portmap') };
    fillMappings(portmap, backend, mappings - 1);
    runChain(suite, list, 'ADD', { id: name, netns: inside, ports: [PORT] });
  });
  const server = await listen(inside);
  return {
    suite: suite.name,
    mappings,
    connect: (count) => inNamespace(outside, () => connect(count)),
    close: () => void server.kill('SIGKILL'),
  };
}

function program(file: string): string[] {
  return ['--no-warnings', resolve(import.meta.dirname, file)];
}

async function listen(namespace: string): Promise<ChildProcess> {
  const child = spawn(
    'nsenter',
    [`--net=${namespace}`, '--', process.execPath, ...program('listen.ts'), String(PORT)],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  await once(child.stdout, 'data');
  return child;
}

function connect(count: number): number {
  const args = [...program('connect.ts'), HOST, String(PORT), String(count)];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 });
  if (status !== 0) throw new Error(`connect.ts: ${stderr}`);
  return Number(stdout);
}
