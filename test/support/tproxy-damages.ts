import { sh, type TestedBackend } from './tproxy.ts';

/** One way in which an allocation can fall out of the mesh. */
export interface Damage {
  readonly what: string;
  /** Words for `iptables -t nat`, one call each. */
  readonly iptables: readonly string[];
  /** Words for `nft`, HANDLE(chain, text) standing for the handle of a rule. */
  readonly nft: readonly string[];
  /** What the error names. */
  readonly says: RegExp;
}

export const TABLE = 'inet consul_tproxy';
const UID = '-m owner --uid-owner 101 -j RETURN';

export const DAMAGES: readonly Damage[] = [
  {
    what: 'the flushed table',
    iptables: ['-F'],
    nft: [`flush table ${TABLE}`],
    says: /PREROUTING lacks the rule: -p tcp -j CONSUL_PROXY_INBOUND/,
  },
  {
    what: 'a namespace made anew',
    iptables: ['-F', '-X'],
    nft: [`delete table ${TABLE}`],
    says: /CONSUL_PROXY_INBOUND/,
  },
  {
    what: 'the missing jump for inbound connections',
    iptables: ['-D PREROUTING -p tcp -j CONSUL_PROXY_INBOUND'],
    nft: [`flush chain ${TABLE} CONSUL_NAT_PREROUTING`],
    says: /chain PREROUTING lacks the rule: -p tcp -j CONSUL_PROXY_INBOUND/,
  },
  {
    what: 'the missing jump for outbound connections',
    iptables: ['-D OUTPUT -p tcp -j CONSUL_PROXY_OUTPUT'],
    nft: [
      `delete rule ${TABLE} CONSUL_NAT_OUTPUT handle HANDLE(CONSUL_NAT_OUTPUT, jump CONSUL_PROXY_OUTPUT)`,
    ],
    says: /chain OUTPUT lacks the rule: -p tcp -j CONSUL_PROXY_OUTPUT/,
  },
  {
    what: "the missing return for the proxy's uid",
    iptables: [`-D CONSUL_PROXY_OUTPUT ${UID}`],
    nft: [`delete rule ${TABLE} CONSUL_PROXY_OUTPUT handle HANDLE(CONSUL_PROXY_OUTPUT, skuid 101)`],
    says: /CONSUL_PROXY_OUTPUT lacks the rule: -m owner --uid-owner 101 -j RETURN/,
  },
  {
    what: "the proxy's uid behind the redirect",
    iptables: [`-D CONSUL_PROXY_OUTPUT ${UID}`, `-A CONSUL_PROXY_OUTPUT ${UID}`],
    nft: [
      `delete rule ${TABLE} CONSUL_PROXY_OUTPUT handle HANDLE(CONSUL_PROXY_OUTPUT, skuid 101)`,
      `add rule ${TABLE} CONSUL_PROXY_OUTPUT skuid 101 return`,
    ],
    says: /the rule: -j CONSUL_PROXY_REDIRECT precedes: -m owner --uid-owner 101/,
  },
  {
    what: 'another inbound port',
    iptables: [
      '-F CONSUL_PROXY_IN_REDIRECT',
      '-A CONSUL_PROXY_IN_REDIRECT -p tcp -j REDIRECT --to-ports 9998',
    ],
    nft: [
      `flush chain ${TABLE} CONSUL_PROXY_IN_REDIRECT`,
      `add rule ${TABLE} CONSUL_PROXY_IN_REDIRECT meta l4proto tcp redirect to :9998`,
    ],
    says: /CONSUL_PROXY_IN_REDIRECT lacks the rule: -p tcp -j REDIRECT --to-ports 9999/,
  },
  {
    what: 'another outbound port',
    iptables: ['-F CONSUL_PROXY_REDIRECT', '-A CONSUL_PROXY_REDIRECT -p tcp -j REDIRECT --to-ports 15009'],
    nft: [
      `flush chain ${TABLE} CONSUL_PROXY_REDIRECT`,
      `add rule ${TABLE} CONSUL_PROXY_REDIRECT meta l4proto tcp redirect to :15009`,
    ],
    says: /CONSUL_PROXY_REDIRECT lacks the rule: -p tcp -j REDIRECT --to-ports 15001/,
  },
  {
    what: 'an exemption for all users inserted first',
    iptables: ['-I CONSUL_PROXY_OUTPUT -j RETURN'],
    nft: [`insert rule ${TABLE} CONSUL_PROXY_OUTPUT return`],
    says: /in chain CONSUL_PROXY_OUTPUT the rule: -j RETURN precedes/,
  },
  {
    what: 'an exemption for all inbound connections inserted first',
    iptables: ['-I CONSUL_PROXY_INBOUND -p tcp -m comment --comment "for a test" -j RETURN'],
    nft: [`insert rule ${TABLE} CONSUL_PROXY_INBOUND meta l4proto tcp return`],
    says: /in chain CONSUL_PROXY_INBOUND the rule: -p tcp (-m comment --comment "for a test" )?-j RETURN precedes/,
  },
];

/** What only a table of nftables can suffer: rules that read well, and that no packet comes by. */
export const NFT_DAMAGES: readonly Damage[] = [
  {
    what: 'a table that is switched off',
    iptables: [],
    nft: [`add table ${TABLE} { flags dormant; }`],
    says: /chain CONSUL_PROXY_INBOUND is missing/,
  },
  {
    what: 'a base chain made anew without its hook',
    iptables: [],
    nft: [
      `delete chain ${TABLE} CONSUL_NAT_PREROUTING; add chain ${TABLE} CONSUL_NAT_PREROUTING; ` +
        `add rule ${TABLE} CONSUL_NAT_PREROUTING meta nfproto ipv4 meta l4proto tcp counter jump CONSUL_PROXY_INBOUND`,
    ],
    says: /chain PREROUTING lacks the rule: -p tcp -j CONSUL_PROXY_INBOUND/,
  },
  {
    what: 'a base chain made anew at another hook',
    iptables: [],
    nft: [
      `delete chain ${TABLE} CONSUL_NAT_PREROUTING; ` +
        `add chain ${TABLE} CONSUL_NAT_PREROUTING { type nat hook output priority -100; }; ` +
        `add rule ${TABLE} CONSUL_NAT_PREROUTING meta nfproto ipv4 meta l4proto tcp counter jump CONSUL_PROXY_INBOUND`,
    ],
    says: /chain PREROUTING lacks the rule: -p tcp -j CONSUL_PROXY_INBOUND/,
  },
];

export function harm(netns: string, on: TestedBackend, { iptables, nft }: Damage): void {
  if (on.backend === 'iptables') {
    for (const words of iptables)
      sh(`ip netns exec ${netns} sh -c 'PATH=${on.path}; iptables -t nat ${words}'`);
    return;
  }
  for (const words of nft) sh(`ip netns exec ${netns} nft '${withHandle(netns, words)}'`);
}

function withHandle(netns: string, words: string): string {
  return words.replace(/HANDLE\((\S+), (.+)\)$/, (_, chain: string, text: string) => {
    const line = sh(`ip netns exec ${netns} nft -a list chain ${TABLE} ${chain}`)
      .split('\n')
      .find((one) => one.includes(text));
    return /# handle (\d+)/.exec(line ?? '')?.[1] ?? 'none';
  });
}

/** The rules of one namespace in another one besides, as an ADD under that backend would have left them. */
export function copyRules(from: string, to: string, on: TestedBackend): void {
  const variant = on.name === 'iptables-legacy' ? 'legacy' : 'nft';
  const [save, load] =
    on.backend === 'nftables'
      ? [`nft list table ${TABLE}`, 'nft -f -']
      : [`iptables-${variant}-save -t nat`, `iptables-${variant}-restore`];
  sh(`ip netns exec ${from} ${save} | ip netns exec ${to} ${load}`);
}
