import { CniCode, CniError, toCniError } from '../../shared/cni/errors.ts';
import { inScratchNamespace } from '../../shared/kernel/namespace.ts';
import type { NetlinkRequest } from '../../shared/kernel/netlink/message.ts';
import { createBridge, createVeth } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { findTools, runTool } from '../../shared/packetfilter/iptables/tools.ts';
import { NftConnection } from '../../shared/packetfilter/nftables/connection.ts';
import { addChain, addTable, ruleRequest } from '../../shared/packetfilter/nftables/messages.ts';
import type { NftChain, NftStatement } from '../../shared/packetfilter/nftables/model.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';

/** One feature of the kernel, tried in a network namespace that ends afterwards. */
export interface FeatureTrial {
  /** `owner match of iptables` */
  readonly feature: string;
  /** The module that has it. */
  readonly module: string;
  /** Undefined when it works. */
  readonly problem: string | undefined;
}

/**
 * Does what ADD does, in a scratch namespace: veth, bridge, and rules of each back end that this host can use.
 * @throws without the right to create a network namespace
 */
export function tryFeatures(): FeatureTrial[] {
  return inScratchNamespace(() => {
    using rtnetlink = Rtnetlink.open();
    return [
      trial('bridge', 'bridge', () => createBridge(rtnetlink, { name: 'weft0', up: true })),
      trial('veth', 'veth', () => createVeth(rtnetlink, { name: 'weft1', peer: { name: 'weft2' } })),
      ...nftTrials(),
      ...iptablesTrials('ipv4'),
      ...iptablesTrials('ipv6'),
    ];
  });
}

/** All at once, because each program takes time; one by one to find out which feature is missing. */
function iptablesTrials(family: Family): FeatureTrial[] {
  const tools = findTools(family);
  if (tools === undefined) return [];
  const restore = (input: string): void => {
    const { exitCode, stderr } = runTool(tools.restore, ['--noflush'], { where: 'container', input });
    if (exitCode !== 0) throw new Error(stderr.trim().split('\n')[0] ?? `exit code ${exitCode}`);
  };
  const program = family === 'ipv4' ? 'iptables' : 'ip6tables';
  const inputOf = ({ table, rules }: (typeof IPTABLES)[number]): string =>
    [`*${table}`, ...rules, 'COMMIT', ''].join('\n');
  const together = trial(program, '', () => restore(IPTABLES.map(inputOf).join('')));
  if (together.problem === undefined) return [together];
  return IPTABLES.map((one) =>
    trial(`${one.feature} of ${program}`, one.module, () => restore(inputOf(one))),
  );
}

/** Of the back end iptables: everything that the plugins write. */
const IPTABLES = [
  {
    feature: 'address translation',
    module: 'iptable_nat, nft_chain_nat or xt_MASQUERADE',
    table: 'nat',
    rules: ['-A POSTROUTING -j MASQUERADE', '-A PREROUTING -p tcp -j REDIRECT --to-ports 1'],
  },
  {
    feature: 'owner match',
    module: 'xt_owner',
    table: 'nat',
    rules: ['-A OUTPUT -m owner --uid-owner 101 -j RETURN'],
  },
  {
    feature: 'conntrack match',
    module: 'xt_conntrack',
    table: 'filter',
    rules: ['-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'],
  },
  {
    feature: 'comment, multiport, addrtype and mark',
    module: 'xt_comment, xt_multiport, xt_addrtype or xt_mark',
    table: 'nat',
    rules: [
      '-A PREROUTING -m addrtype --dst-type LOCAL -m comment --comment weft -p tcp -m multiport --dports 1 -j MARK --set-xmark 0x2000/0x2000',
      '-A POSTROUTING -m mark --mark 0x2000/0x2000 -j RETURN',
    ],
  },
] as const;

const TABLE = { family: 'inet', name: 'weft_trial' } as const;
const NAT: NftChain = {
  table: TABLE,
  name: 'nat',
  hook: { type: 'nat', hook: 'postrouting', priority: 100 },
};
const FILTER: NftChain = {
  table: TABLE,
  name: 'filter',
  hook: { type: 'filter', hook: 'output', priority: 0, policy: 'accept' },
};

/** Of the back end nftables, which also carries iptables where that is the nf_tables variant. */
const NFT: readonly {
  feature: string;
  module: string;
  chain: NftChain;
  statements: readonly NftStatement[];
}[] = [
  {
    feature: 'address translation of nf_tables',
    module: 'nft_chain_nat or nft_masq',
    chain: NAT,
    statements: [{ kind: 'masquerade' }],
  },
  {
    feature: 'owner match of nf_tables',
    module: 'nf_tables',
    chain: FILTER,
    statements: [{ kind: 'skuid', first: 101, last: 101 }, { kind: 'return' }],
  },
  {
    feature: 'connection tracking of nf_tables',
    module: 'nft_ct or nf_conntrack',
    chain: FILTER,
    statements: [{ kind: 'ct state', states: ['established', 'related'] }, { kind: 'accept' }],
  },
];

function nftTrials(): FeatureTrial[] {
  const commit = (requests: readonly NetlinkRequest[]): void => {
    using connection = NftConnection.open();
    connection.commit([addTable(TABLE), addChain(FILTER), ...requests]);
  };
  const requestsOf = ({ chain, statements }: (typeof NFT)[number]): NetlinkRequest[] => [
    addChain(chain),
    ruleRequest({ chain, statements }),
  ];
  const together = trial('nf_tables', 'nf_tables', () => commit(NFT.flatMap(requestsOf)));
  if (together.problem === undefined) return [together];
  const bare = trial('nf_tables', 'nf_tables', () => commit([]));
  // Without nf_tables at all, its parts need no mention.
  if (bare.problem !== undefined) return [bare];
  return NFT.map((one) => trial(one.feature, one.module, () => commit(requestsOf(one))));
}

function trial(feature: string, module: string, attempt: () => void): FeatureTrial {
  try {
    attempt();
    return { feature, module, problem: undefined };
  } catch (thrown) {
    // A busy host says nothing about its kernel.
    if (thrown instanceof CniError && thrown.code === CniCode.TryAgainLater) throw thrown;
    return { feature, module, problem: toCniError(thrown).message };
  }
}
