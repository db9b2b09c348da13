import {
  nomadAttachment,
  nomadRemoval,
  type ConsulDns,
  type Group,
} from '../../../examples/countdash/plan.ts';
import type { NetworkList } from '../../../conflist/network-list.ts';
import { addNetwork, checkNetwork, deleteNetwork, type Runtime } from '../../../conflist/runtime.ts';
import type { CniResult } from '../../../shared/cni/results.ts';
import { Agent } from './agent.ts';
import { asNomadBefore, sh } from './client-host.ts';

/** One allocation of a job with a bridge network, treated as Nomad's client treats it. */
export class Allocation {
  readonly group: Group;
  readonly #runtime: Runtime;
  readonly #list: NetworkList;
  readonly #dns: ConsulDns | undefined;
  readonly #agents = new Map<number, Agent>();

  readonly #excluded: object;

  /** @param excluded keys of CONSUL_IPTABLES_CONFIG that the job sets */
  constructor(
    runtime: Runtime,
    list: NetworkList,
    group: Group,
    dns: ConsulDns | undefined,
    excluded: object = {},
  ) {
    this.group = group;
    this.#excluded = excluded;
    this.#runtime = runtime;
    this.#list = list;
    this.#dns = dns;
    sh(`ip netns add ${group.netns}`);
  }

  add(): CniResult {
    const bridge = this.#list.plugins.find(({ type }) => type === 'bridge')?.raw as {
      bridge: string;
      ipam: { ranges: { subnet: string }[][] };
    };
    asNomadBefore(
      bridge.bridge,
      bridge.ipam.ranges.flat().map(({ subnet }) => subnet),
    );
    return addNetwork(this.#runtime, this.#list, this.#attachment);
  }

  check(): void {
    checkNetwork(this.#runtime, this.#list, this.#attachment);
  }

  delete(): void {
    deleteNetwork(this.#runtime, this.#list, nomadRemoval(this.#attachment));
  }

  /** A process inside, under this user id. */
  as(uid: number): Agent {
    const agent = this.#agents.get(uid) ?? new Agent(this.group.netns, uid);
    this.#agents.set(uid, agent);
    return agent;
  }

  /** Ends what runs inside and gives up the namespace, as Nomad does after DEL. */
  close(): void {
    for (const agent of this.#agents.values()) agent.stop();
    sh(`ip netns del ${this.group.netns}`);
  }

  get #attachment(): ReturnType<typeof nomadAttachment> {
    const attachment = nomadAttachment(this.group, this.#dns);
    const args = attachment.args.map(([key, value]) => {
      if (key !== 'CONSUL_IPTABLES_CONFIG') return [key, value] as const;
      return [key, JSON.stringify({ ...(JSON.parse(value) as object), ...this.#excluded })] as const;
    });
    return { ...attachment, args };
  }
}

export function addressesOf(result: CniResult): { ipv4: string; ipv6: string } {
  const plain = result.ips.map(({ address }) => address.replace(/\/.*/, ''));
  return {
    ipv4: plain.find((one) => !one.includes(':')) ?? '',
    ipv6: plain.find((one) => one.includes(':')) ?? '',
  };
}
