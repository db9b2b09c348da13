import { NetlinkNotifications } from '../../shared/kernel/netlink/notifications.ts';
import { attributeOf, textOf } from '../../shared/packetfilter/nftables/nlattr.ts';

/**
 * Tells whether another program has deleted something from the tables that this suite writes to, by the notifications of nf_tables. Added
 * rules need no repair. Each commit ends with a message that names its process: this one's own changes are ignored.
 */
export class RulesetEvents {
  readonly #notifications: NetlinkNotifications;
  /** Something of the commit that is being read was deleted. */
  #isPending = false;

  /** @throws KernelError on a kernel without nf_tables */
  constructor() {
    this.#notifications = NetlinkNotifications.open(NETLINK_NETFILTER, NFNLGRP_NFTABLES);
  }

  /** Whether something was deleted since the last call. Takes no time if there were no commits. */
  hasDeletions(): boolean {
    let found = false;
    const complete = this.#notifications.drain(({ type, body }) => {
      const message = type & 0xff;
      if (type >> 8 !== NFNL_SUBSYS_NFTABLES) return;
      const attributes = body.subarray(GENERIC_HEADER);
      if (message === NEW_GENERATION) {
        const committer = attributeOf(attributes, 2)?.readUInt32BE();
        if (this.#isPending && committer !== process.pid) found = true;
        this.#isPending = false;
      } else if (DELETIONS.has(message)) {
        const table = attributeOf(attributes, 1);
        if (table !== undefined && TABLES.has(textOf(table))) this.#isPending = true;
      }
    });
    return found || !complete;
  }

  close(): void {
    this.#notifications.close();
  }
}

const NETLINK_NETFILTER = 12;
/** linux/netfilter/nfnetlink.h, nf_tables.h: NFT_MSG_NEWGEN, and NFT_MSG_DELTABLE, _DELCHAIN, _DELRULE, _DELSET, _DELSETELEM */
const NFNLGRP_NFTABLES = 7;
const NFNL_SUBSYS_NFTABLES = 10;
const NEW_GENERATION = 15;
const DELETIONS: ReadonlySet<number> = new Set([2, 5, 8, 11, 14]);
const GENERIC_HEADER = 4;
/** iptables-nft's, this suite's own, and firewalld's: it forgets its sources when it loads its rules again. */
const TABLES: ReadonlySet<string> = new Set([
  'filter',
  'nat',
  'weft_hostports',
  'weft_firewall',
  'weft_policy',
  'cni_plugins_masquerade',
  'firewalld',
]);
