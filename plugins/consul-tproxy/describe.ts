import type { Family, Rule } from '../../shared/packetfilter/ruleset.ts';
import type { OwnTable } from './backend.ts';
import { readableRules, takesAllTcp } from './differences.ts';
import { CHAINS } from './chains.ts';
import { withoutPrefixLength } from '../../shared/net/address.ts';

/** What the rules in force do to an allocation's traffic, one paragraph each; printed by `weft show`. */
export interface Description {
  readonly outbound: string;
  readonly inbound: string;
  readonly dns: string;
}

export function describe(tables: readonly OwnTable[]): Description {
  const rules = new RulesInForce(tables);
  return { outbound: outbound(rules), inbound: inbound(rules), dns: dns(rules) };
}

const FAMILIES = ['ipv4', 'ipv6'] as const;
const FAMILY_NAMES = { ipv4: 'IPv4', ipv6: 'IPv6' } as const;

function outbound(rules: RulesInForce): string {
  const refused = FAMILIES.filter((family) =>
    rules.jumps(family, 'filter', 'OUTPUT', CHAINS.rejectOut, 'udp').some(isForAllPorts),
  );
  const udp =
    refused.length === 0
      ? 'UDP other than DNS is not intercepted.'
      : `UDP over ${refused.map((family) => FAMILY_NAMES[family]).join(' and ')} is refused (port unreachable), except DNS and the same exemptions.`;
  return [...FAMILIES.map((family) => outboundTcp(rules, family)), udp].join(' ');
}

function outboundTcp(rules: RulesInForce, family: Family): string {
  const tcp = `TCP over ${FAMILY_NAMES[family]}`;
  const redirect = rules.redirect(family, 'OUTPUT', CHAINS.output, CHAINS.outputRedirect);
  if (redirect !== undefined) {
    return `${tcp} goes to the proxy on port ${redirect.port}, which reads the original destination from the socket (SO_ORIGINAL_DST)${exemptions(redirect.exempt)}.`;
  }
  const exempt = rules.exemptFromRefusal(family, 'OUTPUT', CHAINS.rejectOut);
  if (exempt === undefined) return `${tcp} bypasses the proxy.`;
  return `${tcp} is refused with a reset, so that programs switch to IPv4${exemptions(exempt)}.`;
}

function inbound(rules: RulesInForce): string {
  const tcp = FAMILIES.map((family) => inboundTcp(rules, family));
  return [...tcp, 'Inbound UDP is not intercepted.'].join(' ');
}

function inboundTcp(rules: RulesInForce, family: Family): string {
  const tcp = `TCP that arrives over ${FAMILY_NAMES[family]}`;
  const redirect = rules.redirect(family, 'PREROUTING', CHAINS.inbound, CHAINS.inboundRedirect);
  if (redirect !== undefined) {
    return `${tcp}, for any port, goes to the proxy's public listener on port ${redirect.port}${exemptions(redirect.exempt)}.`;
  }
  const exempt = rules.exemptFromRefusal(family, 'INPUT', CHAINS.rejectIn);
  if (exempt === undefined) return `${tcp} bypasses the proxy and reaches the listening program.`;
  return `${tcp} is refused with a reset${exemptions(exempt)}.`;
}

/** `; exempt: user 101, to 127.0.0.0/8, port 3306`; '' when nothing is. */
function exemptions(rules: readonly Rule[]): string {
  const exempt = rules.map(conditionText);
  return exempt.length === 0 ? '' : `; exempt: ${[...new Set(exempt)].join(', ')}`;
}

function conditionText({ destination, inInterface, outInterface, protocol, matches = [] }: Rule): string {
  const parts = [
    ...(destination === undefined ? [] : [`to ${destination.value}`]),
    ...(inInterface === undefined ? [] : ['from the allocation itself']),
    ...(outInterface === undefined ? [] : ['to the allocation itself']),
    ...matches.map((match) => {
      if (match.kind === 'owner') return `user ${rangeText(match.uid)}`;
      return match.kind === 'port'
        ? `${protocol === 'udp' ? 'UDP ' : ''}port ${rangeText(match.destinationPort)}`
        : match.kind;
    }),
  ];
  return parts.length === 0 ? 'everything' : parts.join(' ');
}

function rangeText({ first, last }: { first: number; last: number }): string {
  return first === last ? String(first) : `${first}-${last}`;
}

/** Queries that are redirected to Consul, then the others of each family. */
function dns(rules: RulesInForce): string {
  const captures = FAMILIES.flatMap((family) => captureOf(rules, family) ?? []);
  const captured = captures.map(
    ({ family, server, consul, exempt }) =>
      `Queries over ${FAMILY_NAMES[family]} to ${server ?? 'any server'}, port 53, UDP and TCP, ${exempt}, go to Consul at ${consul}.`,
  );
  const complete = captures.filter(({ server }) => server === undefined).map(({ family }) => family);
  const rest = FAMILIES.filter((family) => !complete.includes(family));
  return [
    ...(captured.length === 0 ? ['DNS is not captured.'] : captured),
    ...otherQueries(rules, rest, captured.length > 0),
  ].join(' ');
}

interface Capture {
  readonly family: Family;
  /** Undefined: any. */
  readonly server: string | undefined;
  readonly consul: string;
  readonly exempt: string;
}

function captureOf(rules: RulesInForce, family: Family): Capture | undefined {
  if (rules.jumps(family, 'nat', 'OUTPUT', CHAINS.dns, 'udp').length === 0) return undefined;
  const chain = rules.of(family, 'nat', CHAINS.dns);
  const last = chain.findLast(({ target }) => target.kind === 'dnat');
  if (last?.target.kind !== 'dnat') return undefined;
  const { destination } = last;
  const hasExemptions = chain.some(({ target }) => target.kind === 'return');
  return {
    family,
    server: destination === undefined ? undefined : withoutPrefixLength(destination.value),
    consul: last.target.to,
    exempt: hasExemptions ? 'except those of exempt users or to exempt networks' : 'from every process',
  };
}

/** One sentence for families whose queries have the same verdict. */
function otherQueries(rules: RulesInForce, families: readonly Family[], besides: boolean): string[] {
  const names = Map.groupBy(families, (family) =>
    queryVerdict(udpQueries(rules, family), tcpQueries(rules, family)),
  );
  return [...names].map(
    ([verdict, same]) =>
      `${besides ? 'Other queries' : 'Queries'} over ${same.map((family) => FAMILY_NAMES[family]).join(' and ')} ${verdict}.`,
  );
}

type Verdict = 'direct' | 'proxy' | 'refused';

function queryVerdict(udp: Verdict, tcp: Verdict): string {
  if (udp === 'refused') return tcp === 'refused' ? 'are refused' : 'are refused over UDP';
  if (tcp === 'direct') return 'go to their server over UDP and TCP';
  return `go to their server over UDP; over TCP they ${tcp === 'proxy' ? 'go to the proxy' : 'are refused'}`;
}

function udpQueries(rules: RulesInForce, family: Family): Verdict {
  const jumps = rules.jumps(family, 'filter', 'OUTPUT', CHAINS.rejectOut, 'udp');
  if (jumps.length === 0) return 'direct';
  return isDnsExempt(rules.of(family, 'filter', CHAINS.rejectOut), 'udp') ? 'direct' : 'refused';
}

function tcpQueries(rules: RulesInForce, family: Family): Verdict {
  const jumps = rules.jumps(family, 'filter', 'OUTPUT', CHAINS.rejectOut, 'tcp');
  if (jumps.some((jump) => !isForAllPorts(jump))) return 'refused';
  const redirect = rules.redirect(family, 'OUTPUT', CHAINS.output, CHAINS.outputRedirect);
  if (redirect !== undefined) return isDnsExempt(redirect.exempt, 'tcp') ? 'direct' : 'proxy';
  const exempt = rules.exemptFromRefusal(family, 'OUTPUT', CHAINS.rejectOut);
  return exempt === undefined || isDnsExempt(exempt, 'tcp') ? 'direct' : 'refused';
}

/** Whether port 53 of every server is exempt; a return for port 53 of one address is Consul's. */
function isDnsExempt(rules: readonly Rule[], wanted: 'tcp' | 'udp'): boolean {
  return rules.some(
    ({ protocol, destination, matches = [], target }) =>
      target.kind === 'return' &&
      protocol === wanted &&
      destination === undefined &&
      matches.some(
        (match) =>
          match.kind === 'port' && match.destinationPort.first <= 53 && match.destinationPort.last >= 53,
      ),
  );
}

interface Redirect {
  readonly port: number;
  readonly exempt: readonly Rule[];
}

/** Rules in force by purpose. Rules behind one that takes all TCP have no effect and are left out. */
class RulesInForce {
  readonly #tables: readonly OwnTable[];

  constructor(tables: readonly OwnTable[]) {
    this.#tables = tables;
  }

  of(family: Family, table: OwnTable['table'], chain: string): Rule[] {
    const found = this.#tables.find((one) => one.family === family && one.table === table);
    return readableRules(found?.chains.get(chain));
  }

  /** Reachable jumps to `chain` in a built-in chain, for this protocol. */
  jumps(
    family: Family,
    table: OwnTable['table'],
    hook: string,
    chain: string,
    protocol: 'tcp' | 'udp',
  ): Rule[] {
    const rules = this.of(family, table, hook);
    const end =
      protocol === 'tcp' ? rules.findIndex((rule) => !isJumpTo(rule, chain) && takesAllTcp(rule)) : -1;
    return (end < 0 ? rules : rules.slice(0, end)).filter(
      (rule) => isJumpTo(rule, chain) && rule.protocol === protocol,
    );
  }

  /** The port that TCP is redirected to, and the rules that exempt some of it; undefined when TCP is not redirected. */
  redirect(family: Family, hook: string, chain: string, redirectChain: string): Redirect | undefined {
    if (this.jumps(family, 'nat', hook, chain, 'tcp').length === 0) return undefined;
    const exempt = exemptBefore(this.of(family, 'nat', chain), (rule) => isJumpTo(rule, redirectChain));
    const [target] = this.of(family, 'nat', redirectChain).map((rule) => rule.target);
    return exempt === undefined || target?.kind !== 'redirect' ? undefined : { port: target.port, exempt };
  }

  /** The rules that exempt TCP from being refused; undefined when it is not refused. */
  exemptFromRefusal(family: Family, hook: string, chain: string): Rule[] | undefined {
    const all = this.jumps(family, 'filter', hook, chain, 'tcp').some(isForAllPorts);
    return all ? exemptBefore(this.of(family, 'filter', chain), isReset) : undefined;
  }
}

/** Whether a jump applies to every port of its protocol. */
function isForAllPorts({ matches = [] }: Rule): boolean {
  return matches.every(({ kind }) => kind !== 'port');
}

/** The returns for TCP before the end; undefined when there is no end, or it is unreachable. */
function exemptBefore(rules: readonly Rule[], isEnd: (rule: Rule) => boolean): Rule[] | undefined {
  const end = rules.findIndex(isEnd);
  const exempt = end < 0 ? [] : rules.slice(0, end);
  return end < 0 || exempt.some(takesAllTcp)
    ? undefined
    : exempt.filter(({ target, protocol }) => target.kind === 'return' && protocol !== 'udp');
}

function isJumpTo({ target }: Rule, chain: string): boolean {
  return target.kind === 'jump' && target.chain === chain;
}

function isReset({ target }: Rule): boolean {
  return target.kind === 'reject' && target.with === 'tcp-reset';
}
