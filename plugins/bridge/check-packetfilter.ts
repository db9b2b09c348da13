import type { LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { missingMacSpoofCheck } from './nftables/macspoof.ts';
import { expectedAddresses } from './check-container.ts';
import type { CheckContext } from './check-host.ts';
import { otherAddresses } from './container.ts';
import { missingMasqueradeOf } from './masquerade.ts';

/** Masquerading and the MAC spoofing check: what the reference's CHECK never looks at, and `iptables -F` takes away. */
export function checkPacketFilter(
  context: CheckContext,
  link: LinkInfo,
  end: LinkInfo | undefined,
): string[] {
  const { call, inside } = context;
  const problems: (string | undefined)[] = [];
  const addresses = expectedAddresses(context);
  if (call.config.ipMasq && addresses.length > 0) {
    const keep = otherAddresses(inside, link.index);
    const missing = missingMasqueradeOf(call, { addresses, keep });
    if (missing !== undefined) problems.push(`masquerading is not complete: ${missing}`);
  }
  if (call.config.macspoofchk && end !== undefined) {
    const missing = missingMacSpoofCheck(call, { hostInterface: end.name, mac: link.mac ?? '' });
    if (missing !== undefined) problems.push(`the MAC spoofing check is not complete: ${missing}`);
  }
  return problems.filter((problem) => problem !== undefined);
}
