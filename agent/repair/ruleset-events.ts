import { NetlinkNotifications } from '../../shared/kernel/netlink/notifications.ts';
import { attributeOf, textAt } from '../../shared/packetfilter/nftables/nlattr.ts';

/**
 * Tells whether another program has deleted something from the tables that this suite writes to, by the notifications of nf_tables. Added
 * rules need no repair. Each commit ends with a message that names its process: this one's own changes are ignored.
 */
export class RulesetEvents {
  readonly #notifications: NetlinkNotifications;
  /** Something of the commit that is being read was deleted. */
  #isPending = false;
  #readAt = Number.NEGATIVE_INFINITY;

  /** @throws KernelError on a kernel without nf_tables */
  constructor() {
    this.#notifications = NetlinkNotifications.open(NETLINK_NETFILTER, NFNLGRP_NFTABLES);
  }

  /** Whether something was deleted since the last call. Takes no time if there were no commits. */
  hasDeletions(): boolean {
    let found = false;
    const complete = this.#notifications.drain(({ type, body }) => {
      this.#readAt = performance.now();
      const message = type & 0xff;
      if (type >> 8 !== NFNL_SUBSYS_NFTABLES) return;
      const attributes = body.subarray(GENERIC_HEADER);
      if (message === NEW_GENERATION) {
        const committer = attributeOf(attributes, 2)?.readUInt32BE();
        if (this.#isPending && committer !== process.pid) found = true;
        this.#isPending = false;
      } else if (DELETIONS.has(message)) {
        if (mayBeOurs(message, attributes)) this.#isPending = true;
      }
    });
    return found || !complete;
  }

  /** To wait for the next notification; undefined right after one, since a program that never stops must not wake the agent each time. */
  wakeFd(): number | undefined {
    return performance.now() - this.#readAt < LONGEST_DELAY_MS ? undefined : this.#notifications.fd;
  }

  close(): void {
    this.#notifications.close();
  }
}

/** In iptables' tables, programs change chains of their own, and their own rules in built-in chains, all the time. */
function mayBeOurs(message: number, attributes: Buffer): boolean {
  const table = textAt(attributes, TABLE_NAME);
  if (!TABLES.has(table)) return false;
  if (table !== 'filter' && table !== 'nat') return true;
  if (message === DELETE_RULE)
    // The name of the rule's chain, or of the one that it jumps to.
    return CHAIN_PREFIXES.some((prefix) => attributes.includes(prefix));
  return message !== DELETE_CHAIN || CHAINS.test(textAt(attributes, CHAIN_NAME));
}

/** Between two looks at notifications while they come without end. */
export const LONGEST_DELAY_MS = 200;

const NETLINK_NETFILTER = 12;
/** linux/netfilter/nfnetlink.h, nf_tables.h: NFT_MSG_NEWGEN, and NFT_MSG_DELTABLE, _DELCHAIN, _DELRULE, _DELSET, _DELSETELEM */
const NFNLGRP_NFTABLES = 7;
const NFNL_SUBSYS_NFTABLES = 10;
const NEW_GENERATION = 15;
const DELETE_CHAIN = 5;
const DELETE_RULE = 8;
const DELETIONS: ReadonlySet<number> = new Set([2, DELETE_CHAIN, DELETE_RULE, 11, 14]);
/** NFTA_TABLE_NAME, as NFTA_RULE_TABLE and others; NFTA_CHAIN_NAME */
const TABLE_NAME = 1;
const CHAIN_NAME = 3;
const GENERIC_HEADER = 4;
/** iptables-nft's, this suite's own, and firewalld's: it forgets its sources when it loads its rules again. */
const TABLES: ReadonlySet<string> = new Set([
  'filter',
  'nat',
  'weft_hostports',
  'weft_firewall',
  'weft_policy',
  'weft_masquerade',
  'cni_plugins_masquerade',
  'firewalld',
]);
/** Of the chains of this suite, to which each of its rules in a built-in chain jumps; the second in table `nat` of bridges. */
const CHAIN_PREFIXES = ['CNI-', 'cni-br-iface-'];
/** Chains with rules of this suite. A jump to the operator's chain is deleted before that chain. */
const CHAINS = /^(FORWARD|PREROUTING|OUTPUT|POSTROUTING|CNI-.*|cni-br-iface-.*)$/;
