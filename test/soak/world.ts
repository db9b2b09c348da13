import { mkdirSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { loadNetworkList, parseNetworkList, type NetworkList } from '../../conflist/network-list.ts';
import { Agent } from '../e2e/support/agent.ts';
import { asNomadBefore, makeClientHost, OUTSIDE, sh } from '../e2e/support/client-host.ts';
import { useVariant } from '../support/variants.ts';
import { foreignObjects } from './foreign.ts';

export const BACKENDS = ['iptables-nft', 'iptables-legacy', 'nftables'] as const;
export type Backend = (typeof BACKENDS)[number];

export const LIST_NAMES = ['nomad', 'nomad-dual-stack', 'nomad-hairpin', 'nomad-tproxy'] as const;
export type ListName = (typeof LIST_NAMES)[number];

/** A Nomad client with all of Nomad's lists, beside rules, leases, interfaces and a container of other origin that must never change. */
export interface World {
  readonly lists: Readonly<Record<ListName, NetworkList>>;
  /** Another network with its own bridge and subnet, for the container that stays. */
  readonly otherList: NetworkList;
  /** PATH whose `iptables` is the variant in use, and the one of the other variant. */
  readonly path: string;
  readonly otherPath: string;
  /** A machine outside, which answers on {@link SOMEWHERE}. */
  readonly outside: Agent;
  /** Enters the namespaces of containers, as the user whose connections no rule of the transparent proxy redirects. */
  readonly inside: Agent;
}

export const SOMEWHERE = 7000;
const PROXY_UID = 101;

export function stopWorld({ outside, inside }: World): void {
  outside.stop();
  inside.stop();
}

export async function makeWorld(backend: Backend): Promise<World> {
  const variant = backend === 'iptables-legacy' ? 'legacy' : 'nft';
  const otherPath = pathOf(variant === 'nft' ? 'legacy' : 'nft');
  const path = pathOf(variant);
  makeClientHost();
  // The nftables back end cannot accept what a chain of iptables drops.
  if (backend === 'nftables') nodeDefaults({ backend: 'nftables' });
  else sh('iptables -P FORWARD DROP; ip6tables -P FORWARD DROP');
  foreignObjects(variant);
  asNomadBefore('nomad', ['172.26.64.0/20', '3fff:cab0:0d13::/120']);
  asNomadBefore('other', ['10.251.0.0/24']);
  const outside = new Agent(OUTSIDE.name);
  await outside.serve(SOMEWHERE, 'outside');
  const inside = new Agent(undefined, PROXY_UID, undefined, '+sys_admin');
  const lists = Object.fromEntries(LIST_NAMES.map((name) => [name, listOf(name, backend)]));
  return {
    lists: lists as World['lists'],
    otherList: otherNetwork(backend),
    path,
    otherPath,
    outside,
    inside,
  };
}

function pathOf(variant: 'nft' | 'legacy'): string {
  useVariant(variant);
  return process.env['PATH'] ?? '';
}

function nodeDefaults(defaults: object): void {
  mkdirSync('/etc/weft', { recursive: true });
  writeFileSync('/etc/weft/weft.json', JSON.stringify(defaults));
}

interface Document {
  name: string;
  plugins: { type: string; backend?: string; bridge?: string; ipam?: { ranges: unknown } }[];
}

function listOf(
  name: ListName,
  backend: Backend,
  edit: (document: Document) => void = () => undefined,
): NetworkList {
  const list = loadNetworkList(resolve(import.meta.dirname, `../../conflist/${name}.conflist`));
  const document = JSON.parse(list.text) as Document;
  // Nomad's list names iptables; on nftables the node's own default decides for every plugin.
  if (backend === 'nftables') for (const plugin of document.plugins) delete plugin.backend;
  edit(document);
  return parseNetworkList(JSON.stringify(document), name);
}

function otherNetwork(backend: Backend): NetworkList {
  return listOf('nomad', backend, (document) => {
    document.name = 'other';
    for (const plugin of document.plugins.filter(({ type }) => type === 'bridge')) {
      plugin.bridge = 'other';
      if (plugin.ipam !== undefined) plugin.ipam.ranges = [[{ subnet: '10.251.0.0/24' }]];
    }
  });
}
