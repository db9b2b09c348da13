import { parseAddress, parseCidr, formatAddress } from '../../shared/net/address.ts';
import { isUnmanaged } from '../../shared/packetfilter/compare.ts';
import type { Rule, TableState } from '../../shared/packetfilter/ruleset.ts';
import type { Released } from './backend.ts';
import type { Claim, Protocol } from './mapping.ts';

/** A port that a container's chain leads to it, read back from the DNAT rules. */
export interface Forwarded extends Claim {
  readonly containerAddress: string;
}

export function forwardedBy(state: TableState, chain: string): Forwarded[] {
  return (state.chains.get(chain) ?? []).flatMap((rule) => {
    const forwarded = isUnmanaged(rule) ? undefined : readForwarded(rule);
    return forwarded === undefined ? [] : [forwarded];
  });
}

export function releasedOf(state: TableState, chain: string): Released[] {
  return forwardedBy(state, chain).map(({ protocol, first, last, containerAddress }) => ({
    protocol,
    first,
    last,
    containerAddress,
  }));
}

function readForwarded({ protocol, destination, matches = [], target }: Rule): Forwarded | undefined {
  const port = matches.find((match) => match.kind === 'port')?.destinationPort;
  if (target.kind !== 'dnat' || port === undefined || !isProtocol(protocol)) return undefined;
  const containerAddress = addressIn(target.to);
  if (containerAddress === undefined) return undefined;
  const host = destination === undefined ? undefined : parseCidr(destination.value)?.address;
  return { protocol, ...port, address: host && formatAddress(host), containerAddress };
}

/** The address of `10.88.0.2:80`, `[fd00::2]:80` and `fd00::2`. */
function addressIn(to: string): string | undefined {
  const text = /^\[([^\]]+)\]/.exec(to)?.[1] ?? (parseAddress(to) === undefined ? to.split(':')[0] : to);
  const address = parseAddress(text ?? '');
  return address && formatAddress(address);
}

function isProtocol(protocol: Rule['protocol']): protocol is Protocol {
  return protocol === 'tcp' || protocol === 'udp' || protocol === 'sctp';
}
