import { nomadAttachment, type Group } from '../../examples/countdash/plan.ts';
import { HOST, sh } from '../e2e/support/client-host.ts';
import { Random } from '../support/random.ts';
import type { Container } from './container.ts';
import { Model } from './model.ts';
import * as operations from './operations.ts';
import type { Host } from './operations.ts';
import { hostLines } from './state.ts';
import { APP_PORT } from './traffic.ts';
import { LIST_NAMES, type ListName, type World } from './world.ts';

/** Adds one container of each list, twice: the first time makes what all share, the second shows what belongs to one. */
export async function learnHost(world: World): Promise<Host> {
  const model = new Model();
  const host: Host = { world, model, deleted: [], made: 0 };
  const random = new Random(0);
  // A loopback interface that was up keeps its address.
  sh('ip netns add empty; ip -n empty link set lo up; ip -n empty link set lo down');
  await model.learnEmpty('empty');
  const first = LIST_NAMES.map((list) => newContainer(host, random, list));
  await Promise.all(first.map((container) => operations.add(host, container)));
  await Promise.all(first.map((container) => operations.del(host, container, 'as Nomad')));
  await model.learnBase();
  const second = LIST_NAMES.map((list) => newContainer(host, random, list));
  for (const container of second) {
    const before = await hostLines();
    await operations.add(host, container);
    await model.learn(container, before);
  }
  await model.verify();
  await Promise.all(second.map((container) => operations.del(host, container, 'as Nomad')));
  await model.verify();
  host.deleted.length = 0;
  return host;
}

/** A container that does not exist yet, as Nomad would describe it. */
export function newContainer(
  host: Host,
  random: Random,
  list: ListName,
  ports: readonly number[] = portsOf(list, host.made),
): Container {
  host.made += 1;
  const id = [8, 4, 4, 4, 12].map((digits) => hex(random, digits)).join('-');
  const names = { name: 'soak', service: 'soak', allocId: id, netns: id };
  const group: Group = {
    ...names,
    appPort: APP_PORT,
    virtualAddress: '240.0.0.1',
    proxyPort: ports[1] ?? 20_000,
    ports: ports.map((port, at) => ({
      label: String(at),
      host: port,
      to: at === 0 ? APP_PORT : port,
      reserved: at === 0,
    })),
  };
  const dns = list === 'nomad-tproxy' ? { address: HOST.ipv4, port: 8600 } : undefined;
  return { id, list, ports, attachment: nomadAttachment(group, dns), result: undefined, isLost: false };
}

/** Lists differ in how many ports their containers publish. No port is used twice within ten thousand containers. */
function portsOf(list: ListName, made: number): number[] {
  const first = 20_000 + ((2 * made) % 20_000);
  return [first, first + 1].slice(
    0,
    { nomad: 1, 'nomad-dual-stack': 2, 'nomad-hairpin': 0, 'nomad-tproxy': 2 }[list],
  );
}

function hex(random: Random, digits: number): string {
  return Array.from({ length: digits }, () => random.below(16).toString(16)).join('');
}
