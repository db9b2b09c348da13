import type { Trace } from '../../../shared/attachments/leftover.ts';
import {
  addressFromBytes,
  formatAddress,
  formatCidr,
  networkOf,
  parseCidr,
  type Cidr,
} from '../../../shared/net/address.ts';
import { sha512 } from '../../../shared/cni/sha512.ts';
import { decodeExpressions } from '../../../shared/packetfilter/nftables/decode-expressions.ts';
import type { NftRule } from '../../../shared/packetfilter/nftables/model.ts';
import type { StandingRule } from '../../../shared/packetfilter/nftables/reader.ts';
import type { Attachment } from '../identity.ts';

/**
 * The rule that masquerades one address of an interface, in the reference's words (pkg/ip/ipmasq_nftables_linux.go):
 *
 *     ip saddr <address> ip daddr != <own subnet> masquerade  comment "<network>-<interface>, net: ..."
 *
 * The comment names the interface, so the interfaces of one container are independent of each other.
 */
export function masqueradeRule(attachment: Attachment, text: string): Omit<NftRule, 'chain'> {
  const cidr = cidrOf(text);
  return {
    comment: commentOf(attachment),
    statements: [
      { kind: 'address', side: 'saddr', cidr: formatAddress(cidr.address) },
      { kind: 'address', side: 'daddr', cidr: formatCidr(networkOf(cidr)), not: true },
      { kind: 'masquerade' },
    ],
  };
}

/** @param text with prefix length @throws Error for anything else, which is a bug: results are validated */
export function cidrOf(text: string): Cidr {
  const cidr = parseCidr(text);
  if (cidr === undefined) throw new Error(`not an address with prefix length: ${text}`);
  return cidr;
}

/** The container's address, then its subnet. */
export function addressOf({ expressions }: StandingRule): string | undefined {
  const [source] = decodeExpressions(expressions).flatMap((one) =>
    one.kind === 'cmp' ? (addressFromBytes(one.value) ?? []) : [],
  );
  return source === undefined ? undefined : formatAddress(source);
}

/** For garbage collection, unless the comment was cut off. */
export function traceOf(rule: StandingRule, where: string): Trace[] {
  const { comment = '' } = rule;
  if (Buffer.byteLength(comment) >= COMMENT_BYTES) return [];
  const [, network, ifname, containerId] = /, net: (\S+), if: (\S+), id: (\S+)$/.exec(comment) ?? [];
  if (network === undefined || containerId === undefined) return [];
  const address = addressOf(rule);
  const addresses = address === undefined ? [] : [address];
  const what = `rule for ${addresses.join()} ${where}`;
  return [{ network, containerId, ifname, what, namespace: 'unknown', addresses: () => addresses }];
}

/** The comments of one interface begin with this. */
export function tag({ network, containerId, ifname }: Attachment): string {
  return `${networkTag(network)}${short(`${ifname}:${containerId}`)}`;
}

/** Beginning of the {@link tag} of all interfaces of a network. */
export function networkTag(network: string): string {
  return `${short(network)}-`;
}

/** Longest comment that nft(8) accepts (NFTNL_UDATA_COMMENT_MAXLEN), without its NUL. */
const COMMENT_BYTES = 127;

function commentOf(attachment: Attachment): string {
  const { network, containerId, ifname } = attachment;
  const text = `${tag(attachment)}, net: ${network}, if: ${ifname}, id: ${containerId}`.replaceAll('"', '');
  return Buffer.from(text)
    .subarray(0, COMMENT_BYTES)
    .toString('utf8')
    .replace(/\uFFFD+$/, '');
}

function short(text: string): string {
  return sha512(text).toString('hex').slice(0, 16);
}
