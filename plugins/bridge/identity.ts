import { formatMac } from '../../shared/net/address.ts';
import { sha512 } from '../../shared/cni/sha512.ts';
import { localMac } from './mac.ts';

/** What one interface of one container on one network is known by. */
export interface Attachment {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string;
}

/**
 * Names and addresses that follow from the attachment alone, so that the pair is found again with no memory of it: by a
 * second ADD, by a DEL without namespace or prevResult, by GC.
 */
export interface Identity {
  /** Names for the host's end, best first; the next one counts only while another attachment's pair has the former. */
  readonly hostNames: readonly string[];
  /**
   * MAC of the host's end: begins with fe, so that a bridge without a MAC of its own never takes it (it takes the lowest
   * of its ports'). Together with the name it tells our pair from any other: 72 bits of the digest.
   */
  readonly hostMac: string;
  /** MAC of the container's end when nobody asks for another; the same after a second ADD, so that neighbours stay right. */
  readonly containerMac: string;
  /** IFLA_IFALIAS of the host's end, shown by `ip link`: which container hangs on it. */
  readonly alias: string;
}

export function identify(attachment: Attachment): Identity {
  const { network, containerId, ifname } = attachment;
  // None of the three may hold a slash, so no two attachments spell the same text.
  const key = `${network}/${containerId}/${ifname}`;
  const digest = sha512(`weft bridge ${key}`);
  return {
    hostNames: Array.from(
      { length: CANDIDATES },
      (_, at) => `veth${digest.toString('hex', 4 * at, 4 * at + 4)}`,
    ),
    hostMac: formatMac(Uint8Array.of(0xfe, ...digest.subarray(MAC_AT, MAC_AT + 5))),
    containerMac: localMac(digest.subarray(MAC_AT + 5, MAC_AT + 11)),
    alias: aliasOf(attachment),
  };
}

/** The attachment that an alias names; undefined for any other text. */
export function attachmentOfAlias(alias: string | undefined): Attachment | undefined {
  if (alias === undefined || !alias.startsWith(ALIAS_PREFIX)) return undefined;
  const [network, containerId, ifname, more] = alias.slice(ALIAS_PREFIX.length).split('/');
  if (!network || !containerId || !ifname || more !== undefined) return undefined;
  return { network, containerId, ifname };
}

function aliasOf({ network, containerId, ifname }: Attachment): string {
  const alias = `${ALIAS_PREFIX}${network}/${containerId}/${ifname}`;
  // linux/if.h IFALIASZ: the kernel refuses longer ones; such a pair is still known by its name and MAC.
  return Buffer.byteLength(alias) < 256 ? alias : '';
}

const ALIAS_PREFIX = 'weft:';
/** 32 bits collide once in some 65,000 containers on one host; four times in a row they do not. */
const CANDIDATES = 4;
/** Bytes of the digest behind those that the names use. */
const MAC_AT = 4 * CANDIDATES;
