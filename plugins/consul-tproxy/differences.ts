import { isUnmanaged, jumpOf } from '../../shared/packetfilter/compare.ts';
import { ruleText } from '../../shared/packetfilter/iptables/render.ts';
import type { Family, UnmanagedRule, Rule, TableName } from '../../shared/packetfilter/ruleset.ts';
import type { OwnTable } from './backend.ts';
import { CHAINS, CHAINS_OF, HOOKS_OF } from './chains.ts';
import { fromUid, jumping, returning, type TablePlan } from './plan.ts';
import type { DnsRequest, ProxyRequest, UidRange } from './request.ts';

/** One chain that is not as planned. Of built-in chains only the jumps to the plugin's chains count. */
export interface Difference {
  readonly family: Family;
  readonly table: TableName;
  readonly chain: string;
  /** `CONSUL_PROXY_INBOUND (ipv4 nat): missing -p tcp …; not planned -p udp …` */
  readonly text: string;
}

/** Every difference between the plugin's chains as planned and as found: rules and their order. */
export function differences(plan: readonly TablePlan[], present: readonly OwnTable[]): Difference[] {
  return (['ipv4', 'ipv6'] as const).flatMap((family) =>
    (['nat', 'filter'] as const).flatMap((table) => {
      const isSame = (one: { family: Family; table: TableName }): boolean =>
        one.family === family && one.table === table;
      const wanted = plan.find(isSame) ?? { family, table, chains: [], hooks: [] };
      const found = present.find(isSame)?.chains ?? new Map<string, readonly Rule[]>();
      return [...hookDifferences(wanted, found), ...chainDifferences(wanted, found)];
    }),
  );
}

function hookDifferences({ family, table, hooks }: TablePlan, found: OwnTable['chains']): Difference[] {
  const own: readonly string[] = CHAINS_OF[table];
  return HOOKS_OF[table].flatMap((hook) => {
    const wanted = hooks.find(({ chain }) => chain === hook)?.rules ?? [];
    const jumps = (found.get(hook) ?? []).filter((rule) => own.includes(jumpOf(rule) ?? ''));
    return ruleDifferences({ family, table, chain: hook }, wanted, jumps);
  });
}

function chainDifferences({ family, table, chains }: TablePlan, found: OwnTable['chains']): Difference[] {
  return CHAINS_OF[table].flatMap((chain) => {
    const wanted = chains.find((one) => one.chain === chain)?.rules;
    const rules = found.get(chain);
    if (wanted !== undefined && rules === undefined)
      return [difference({ family, table, chain }, 'the chain is missing')];
    if (wanted === undefined && rules !== undefined)
      return [difference({ family, table, chain }, 'the chain is not planned')];
    return ruleDifferences({ family, table, chain }, wanted ?? [], rules ?? []);
  });
}

function ruleDifferences(
  where: Omit<Difference, 'text'>,
  wanted: readonly Rule[],
  found: readonly (Rule | UnmanagedRule)[],
): Difference[] {
  const wantedTexts = wanted.map((rule) => ruleText(rule));
  const foundTexts = found.map((rule) => (isUnmanaged(rule) ? rule.unmanaged : ruleText(rule)));
  const missing = without(wantedTexts, foundTexts).map((text) => `missing ${text}`);
  const surplus = without(foundTexts, wantedTexts).map((text) => `not planned ${text}`);
  const parts = [...missing, ...surplus];
  if (parts.length > 0) return [difference(where, parts.join('; '))];
  return wantedTexts.every((text, at) => text === foundTexts[at])
    ? []
    : [difference(where, 'the rules are in another order')];
}

/** `texts` less those of `others`, copy by copy. */
function without(texts: readonly string[], others: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const text of others) counts.set(text, (counts.get(text) ?? 0) + 1);
  return texts.filter((text) => {
    const count = counts.get(text) ?? 0;
    if (count > 0) counts.set(text, count - 1);
    return count === 0;
  });
}

function difference(where: Omit<Difference, 'text'>, what: string): Difference {
  return { ...where, text: `${where.chain} (${where.family} ${where.table}): ${what}` };
}

/** A rule of the IPv4 nat table without which TCP bypasses the proxy, or loops through it. */
export interface RequiredRule {
  readonly chain: string;
  readonly rule: Rule;
  /** Set where the rule identifies the proxy (its uid, its outbound port), which a node's configuration may change while it runs. */
  readonly identifiesProxy?: true;
}

export function requiredRules(request: ProxyRequest): readonly RequiredRule[] {
  const tcp = { protocol: 'tcp' } as const;
  const redirect = (port: number): Rule => ({ ...tcp, target: { kind: 'redirect', port } });
  // A job that excludes every destination has no outbound traffic to intercept.
  const outbound = !request.excludeOutboundCidrs.ipv4.includes('0.0.0.0/0');
  const rules: readonly RequiredRule[] = [
    { chain: 'PREROUTING', rule: jumping(CHAINS.inbound, tcp) },
    { chain: CHAINS.inbound, rule: jumping(CHAINS.inboundRedirect, tcp) },
    { chain: CHAINS.inboundRedirect, rule: redirect(request.inboundPort) },
    { chain: 'OUTPUT', rule: jumping(CHAINS.output, tcp) },
    { chain: CHAINS.output, rule: returning(fromUid(request.proxyUid)), identifiesProxy: true },
    { chain: CHAINS.output, rule: jumping(CHAINS.outputRedirect) },
    { chain: CHAINS.outputRedirect, rule: redirect(request.outboundPort), identifiesProxy: true },
  ];
  return rules.filter(({ chain }) => outbound || chain !== CHAINS.output);
}

export interface BrokenRule {
  readonly required: RequiredRule;
  /** `chain C lacks the rule: …`, or which rule makes it unreachable. */
  readonly text: string;
}

/** Required rules that are missing from the IPv4 nat table, or unreachable behind a rule that ends every packet's way. */
export function brokenRules(nat: OwnTable | undefined, required: readonly RequiredRule[]): BrokenRule[] {
  return required.flatMap((one) => {
    const rules = nat?.chains.get(one.chain);
    const text = rules === undefined ? `chain ${one.chain} is missing` : problemOf(one, rules);
    return text === undefined ? [] : [{ required: one, text }];
  });
}

function problemOf(
  { chain, rule }: RequiredRule,
  rules: readonly (Rule | UnmanagedRule)[],
): string | undefined {
  const text = ruleText(rule);
  const at = rules.findIndex((one) => !isUnmanaged(one) && ruleText(one) === text);
  if (at < 0) return `chain ${chain} lacks the rule: ${text}`;
  // The redirect counts as an obstacle to the return for the proxy's uid, which must come first.
  const obstacle = readableRules(rules.slice(0, at)).find(takesAllTcp);
  return obstacle && `in chain ${chain} the rule: ${ruleText(obstacle)} precedes: ${text}`;
}

/** Without rules that the back end cannot express as Rule. */
export function readableRules(rules: readonly (Rule | UnmanagedRule)[] = []): Rule[] {
  return rules.filter((rule): rule is Rule => !isUnmanaged(rule));
}

/** Whether no TCP packet passes this rule: the rules behind it have no effect on TCP. */
export function takesAllTcp(rule: Rule): boolean {
  const { protocol, source, destination, inInterface, outInterface, matches = [], target } = rule;
  const conditions = [
    ...[source, destination, inInterface, outInterface].filter((one) => one !== undefined),
    ...matches.filter(({ kind }) => kind !== 'comment'),
  ];
  const isFinal =
    target.kind !== 'mark' && (target.kind !== 'jump' || target.chain === CHAINS.outputRedirect);
  return isFinal && (protocol === undefined || protocol === 'tcp') && conditions.length === 0;
}

/** The proxy according to the rules in force: the port that outbound TCP is redirected to, and the uids that are exempt from that. */
export function proxyInForce(nat: OwnTable | undefined): { port: number | undefined; uids: UidRange[] } {
  const targets = readableRules(nat?.chains.get(CHAINS.outputRedirect)).map(({ target }) => target);
  const redirect = targets.find((target) => target.kind === 'redirect');
  const rules = readableRules(nat?.chains.get(CHAINS.output));
  const end = rules.findIndex(takesAllTcp);
  const reachable = end < 0 ? rules : rules.slice(0, end);
  const uids = reachable
    .filter(({ target }) => target.kind === 'return')
    .flatMap(({ matches = [] }) => matches.flatMap((match) => (match.kind === 'owner' ? [match.uid] : [])));
  return { port: redirect?.port, uids };
}

/** The Consul DNS that the rules in force redirect queries to; undefined when they redirect none. */
export function dnsInForce(tables: readonly OwnTable[]): DnsRequest | undefined {
  for (const { family, table, chains } of tables) {
    const rules = table === 'nat' ? readableRules(chains.get(CHAINS.dns)) : [];
    const target = rules.map((rule) => rule.target).find((one) => one.kind === 'dnat');
    if (target === undefined) continue;
    const [, address, port] = /^\[(.+)\]:(\d+)$/.exec(target.to) ?? /^([^:]+):(\d+)$/.exec(target.to) ?? [];
    return { address: { family, text: address ?? target.to }, port: Number(port ?? 0) };
  }
  return undefined;
}

export function natOf(tables: readonly OwnTable[]): OwnTable | undefined {
  return tables.find(({ family, table }) => family === 'ipv4' && table === 'nat');
}
