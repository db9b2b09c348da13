import type { Family, Rule } from '../../shared/packetfilter/ruleset.ts';
import type { OwnTable } from './backend.ts';
import { ours } from './interception.ts';
import { CHAINS } from './names.ts';

/** What standing rules do to an allocation's traffic, a paragraph each, for people. */
export interface Description {
  readonly outbound: string;
  readonly inbound: string;
  readonly dns: string;
}

export function describe(tables: readonly OwnTable[]): Description {
  const view = new View(tables);
  return { outbound: outbound(view), inbound: inbound(view), dns: dns(view) };
}

const FAMILIES = ['ipv4', 'ipv6'] as const;
const NAMES = { ipv4: 'IPv4', ipv6: 'IPv6' } as const;

/** The tables by what they are asked for. */
class View {
  readonly #tables: readonly OwnTable[];

  constructor(tables: readonly OwnTable[]) {
    this.#tables = tables;
  }

  rules(family: Family, table: OwnTable['table'], chain: string): Rule[] {
    const found = this.#tables.find((one) => one.family === family && one.table === table);
    return ours(found?.chains.get(chain));
  }

  /** Jumps to `chain` in a built-in chain, for this protocol. */
  hooked(
    family: Family,
    table: OwnTable['table'],
    hook: string,
    chain: string,
    protocol: 'tcp' | 'udp',
  ): Rule[] {
    return this.rules(family, table, hook).filter(
      (rule) => rule.target.kind === 'jump' && rule.target.chain === chain && rule.protocol === protocol,
    );
  }

  redirect(family: Family, hook: string, chain: string, redirectChain: string): number | undefined {
    if (this.hooked(family, 'nat', hook, chain, 'tcp').length === 0) return undefined;
    const target = this.rules(family, 'nat', redirectChain).find(
      (rule) => rule.target.kind === 'redirect',
    )?.target;
    return target?.kind === 'redirect' ? target.port : undefined;
  }
}

function outbound(view: View): string {
  const parts = FAMILIES.map((family) => outboundTcp(view, family));
  const refused = FAMILIES.filter((family) =>
    view
      .hooked(family, 'filter', 'OUTPUT', CHAINS.rejectOut, 'udp')
      .some(({ matches = [] }) => matches.every(({ kind }) => kind !== 'port')),
  );
  const udp =
    refused.length === 0
      ? 'UDP other than DNS leaves untouched.'
      : `UDP over ${refused.map((family) => NAMES[family]).join(' and ')} is refused (port unreachable), DNS and the same exemptions apart.`;
  return `${parts.join(' ')} ${udp}`;
}

function outboundTcp(view: View, family: Family): string {
  const port = view.redirect(family, 'OUTPUT', CHAINS.output, CHAINS.outputRedirect);
  if (port !== undefined) {
    const exempt = exemptions(view.rules(family, 'nat', CHAINS.output));
    return `TCP over ${NAMES[family]} goes to the proxy on port ${port}, which reads from the socket where it was going (SO_ORIGINAL_DST)${exempt}.`;
  }
  const refused = view
    .hooked(family, 'filter', 'OUTPUT', CHAINS.rejectOut, 'tcp')
    .some(({ matches = [] }) => matches.every(({ kind }) => kind !== 'port'));
  if (!refused) return `TCP over ${NAMES[family]} leaves untouched, around the proxy.`;
  return `TCP over ${NAMES[family]} is refused with a reset, so that programs turn to IPv4${exemptions(view.rules(family, 'filter', CHAINS.rejectOut))}.`;
}

function inbound(view: View): string {
  return FAMILIES.map((family) => {
    const port = view.redirect(family, 'PREROUTING', CHAINS.inbound, CHAINS.inboundRedirect);
    if (port !== undefined) {
      return `TCP that arrives over ${NAMES[family]}, for any port, goes to the proxy's public listener on port ${port}${exemptions(view.rules(family, 'nat', CHAINS.inbound))}.`;
    }
    if (view.hooked(family, 'filter', 'INPUT', CHAINS.rejectIn, 'tcp').length === 0) {
      return `TCP that arrives over ${NAMES[family]} reaches the program that listens, around the proxy.`;
    }
    return `TCP that arrives over ${NAMES[family]} is refused with a reset${exemptions(view.rules(family, 'filter', CHAINS.rejectIn))}.`;
  })
    .concat('UDP arrives untouched.')
    .join(' ');
}

function dns(view: View): string {
  const captured = FAMILIES.flatMap((family) => {
    if (view.hooked(family, 'nat', 'OUTPUT', CHAINS.dns, 'udp').length === 0) return [];
    const last = view.rules(family, 'nat', CHAINS.dns).findLast(({ target }) => target.kind === 'dnat');
    if (last?.target.kind !== 'dnat') return [];
    const asked =
      last.destination === undefined ? 'any server' : last.destination.value.replace(/\/\d+$/, '');
    return [
      `Queries over ${NAMES[family]} to ${asked}, port 53 (UDP and TCP, the proxy's too where they are sent to Consul), are answered by ${last.target.to}.`,
    ];
  });
  if (captured.length === 0) return 'DNS is not captured: queries go to whatever server a program asks.';
  const direct = FAMILIES.every((family) =>
    view.rules(family, 'nat', CHAINS.output).every((rule) => !isDnsExemption(rule)),
  );
  return `${captured.join(' ')} ${direct ? 'Queries to other servers over TCP go to the proxy.' : 'Queries to other servers go there, over TCP as well.'}`;
}

function isDnsExemption({ protocol, matches = [], target }: Rule): boolean {
  const isPort53 = matches.some((match) => match.kind === 'port' && match.destinationPort.first === 53);
  return protocol === 'tcp' && target.kind === 'return' && isPort53;
}

/** `; exempt: uid 101, 127.0.0.0/8, port 3306`; '' when nothing is. */
function exemptions(rules: readonly Rule[]): string {
  const exempt = rules.filter(({ target }) => target.kind === 'return').map(condition);
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
