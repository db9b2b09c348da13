import type { Family, Rule } from '../../shared/packetfilter/ruleset.ts';
import type { OwnTable } from './backend.ts';
import { describeDns } from './describe-dns.ts';
import { FAMILIES, FAMILY_NAMES, isWithoutPort, View } from './describe-view.ts';
import { CHAINS } from './names.ts';

/** What standing rules do to an allocation's traffic, a paragraph each, for people. */
export interface Description {
  readonly outbound: string;
  readonly inbound: string;
  readonly dns: string;
}

export function describe(tables: readonly OwnTable[]): Description {
  const view = new View(tables);
  return { outbound: outbound(view), inbound: inbound(view), dns: describeDns(view) };
}

function outbound(view: View): string {
  const parts = FAMILIES.map((family) => outboundTcp(view, family));
  const refused = FAMILIES.filter((family) =>
    view.hooked(family, 'filter', 'OUTPUT', CHAINS.rejectOut, 'udp').some(isWithoutPort),
  );
  const udp =
    refused.length === 0
      ? 'UDP other than DNS leaves untouched.'
      : `UDP over ${refused.map((family) => FAMILY_NAMES[family]).join(' and ')} is refused (port unreachable), DNS and the same exemptions apart.`;
  return `${parts.join(' ')} ${udp}`;
}

function outboundTcp(view: View, family: Family): string {
  const tcp = `TCP over ${FAMILY_NAMES[family]}`;
  const redirect = view.redirect(family, 'OUTPUT', CHAINS.output, CHAINS.outputRedirect);
  if (redirect !== undefined) {
    return `${tcp} goes to the proxy on port ${redirect.port}, which reads from the socket where it was going (SO_ORIGINAL_DST)${exemptions(redirect.exempt)}.`;
  }
  const refusal = view.refusal(family, 'OUTPUT', CHAINS.rejectOut);
  if (refusal === undefined) return `${tcp} leaves untouched, around the proxy.`;
  return `${tcp} is refused with a reset, so that programs turn to IPv4${exemptions(refusal)}.`;
}

function inbound(view: View): string {
  return FAMILIES.map((family) => inboundTcp(view, family))
    .concat('UDP arrives untouched.')
    .join(' ');
}

function inboundTcp(view: View, family: Family): string {
  const tcp = `TCP that arrives over ${FAMILY_NAMES[family]}`;
  const redirect = view.redirect(family, 'PREROUTING', CHAINS.inbound, CHAINS.inboundRedirect);
  if (redirect !== undefined) {
    return `${tcp}, for any port, goes to the proxy's public listener on port ${redirect.port}${exemptions(redirect.exempt)}.`;
  }
  const refusal = view.refusal(family, 'INPUT', CHAINS.rejectIn);
  if (refusal === undefined) return `${tcp} reaches the program that listens, around the proxy.`;
  return `${tcp} is refused with a reset${exemptions(refusal)}.`;
}

/** `; exempt: uid 101, 127.0.0.0/8, port 3306`; '' when nothing is. */
function exemptions(rules: readonly Rule[]): string {
  const exempt = rules.map(condition);
  return exempt.length === 0 ? '' : `; exempt: ${[...new Set(exempt)].join(', ')}`;
}

function condition({ destination, inInterface, outInterface, protocol, matches = [] }: Rule): string {
  const words = [
    ...(destination === undefined ? [] : [`to ${destination.value}`]),
    ...(inInterface === undefined ? [] : ['from the allocation itself']),
    ...(outInterface === undefined ? [] : ['to the allocation itself']),
    ...matches.map((match) => {
      if (match.kind === 'owner') return `user ${span(match.uid, '-')}`;
      return match.kind === 'port'
        ? `${protocol === 'udp' ? 'UDP ' : ''}port ${span(match.destinationPort, '-')}`
        : match.kind;
    }),
  ];
  return words.length === 0 ? 'everything' : words.join(' ');
}

function span({ first, last }: { first: number; last: number }, separator: string): string {
  return first === last ? String(first) : `${first}${separator}${last}`;
}
