import { isUnmanaged } from '../../shared/packetfilter/compare.ts';
import { ruleText } from '../../shared/packetfilter/iptables/render.ts';
import type { UnmanagedRule, Rule } from '../../shared/packetfilter/ruleset.ts';
import type { OwnTable } from './backend.ts';
import { CHAINS } from './names.ts';
import type { ProxyRequest, UidRange } from './request.ts';
import { fromUid, jumping, returning } from './rules.ts';

/** The rules without which TCP does not go through the proxy, or goes round in circles. */
export function interceptionRules(request: ProxyRequest): readonly KeyRule[] {
  const tcp = { protocol: 'tcp' } as const;
  const redirect = (port: number): Rule => ({ ...tcp, target: { kind: 'redirect', port } });
  // A job that excludes every destination has nothing to intercept on the way out.
  const outbound = !request.excludeOutboundCidrs.ipv4.includes('0.0.0.0/0');
  const rules: readonly KeyRule[] = [
    { chain: 'PREROUTING', rule: jumping(CHAINS.inbound, tcp) },
    { chain: CHAINS.inbound, rule: jumping(CHAINS.inboundRedirect, tcp) },
    { chain: CHAINS.inboundRedirect, rule: redirect(request.inboundPort) },
    { chain: 'OUTPUT', rule: jumping(CHAINS.output, tcp) },
    { chain: CHAINS.output, rule: returning(fromUid(request.proxyUid)), of: 'proxy' },
    { chain: CHAINS.output, rule: jumping(CHAINS.outputRedirect) },
    { chain: CHAINS.outputRedirect, rule: redirect(request.outboundPort), of: 'proxy' },
  ];
  return rules.filter(({ chain }) => outbound || chain !== CHAINS.output);
}

export interface KeyRule {
  readonly chain: string;
  readonly rule: Rule;
  /** `proxy`: says who the proxy is (its uid, its outbound port), which a node's configuration may change while it runs. */
  readonly of?: 'proxy';
}

export interface Gap {
  readonly key: KeyRule;
  readonly text: string;
}

/** Key rules that are missing from the IPv4 nat table, or stand behind a rule that keeps every packet from them. */
export function gapsIn(nat: OwnTable | undefined, keys: readonly KeyRule[]): Gap[] {
  return keys.flatMap((key) => {
    const rules = nat?.chains.get(key.chain);
    const problem = rules === undefined ? `chain ${key.chain} is gone` : problemIn(rules, key);
    return problem === undefined ? [] : [{ key, text: problem }];
  });
}

/** Who the standing rules take for the proxy: where outbound TCP goes, and the uids that are let through. */
export function standingProxy(nat: OwnTable | undefined): { port: number | undefined; uids: UidRange[] } {
  const targets = ours(nat?.chains.get(CHAINS.outputRedirect)).map(({ target }) => target);
  const redirect = targets.find((target) => target.kind === 'redirect');
  const rules = ours(nat?.chains.get(CHAINS.output));
  // A return behind the redirect lets nobody through.
  const end = rules.findIndex(takesAllTcp);
  const returns = (end < 0 ? rules : rules.slice(0, end)).filter(({ target }) => target.kind === 'return');
  const uids = returns.flatMap(({ matches = [] }) =>
    matches.flatMap((match) => (match.kind === 'owner' ? [match.uid] : [])),
  );
  return { port: redirect?.port, uids };
}

/** The rules that we can read. */
export function ours(rules: readonly (Rule | UnmanagedRule)[] = []): Rule[] {
  return rules.filter((rule): rule is Rule => !isUnmanaged(rule));
}

function problemIn(rules: readonly (Rule | UnmanagedRule)[], { chain, rule }: KeyRule): string | undefined {
  const text = ruleText(rule);
  const at = rules.findIndex((one) => !isUnmanaged(one) && ruleText(one) === text);
  if (at < 0) return `chain ${chain} lacks the rule: ${text}`;
  const obstacle = ours(rules.slice(0, at)).find(takesAllTcp);
  // The uid's return must come before the redirect, so the redirect itself is an obstacle to it.
  return obstacle === undefined
    ? undefined
    : `in chain ${chain} the rule: ${ruleText(obstacle)} stands before: ${text}`;
}

/** Whether no TCP packet gets past this rule: behind it nothing happens to any. */
export function takesAllTcp({
  protocol,
  source,
  destination,
  inInterface,
  outInterface,
  matches,
  target,
}: Rule): boolean {
  // A comment is no condition.
  const conditions = [source, destination, inInterface, outInterface, ...(matches ?? [])].filter(
    (one) => one === undefined || !('kind' in one) || one.kind !== 'comment',
  );
  const isEnd = target.kind !== 'mark' && (target.kind !== 'jump' || target.chain === CHAINS.outputRedirect);
  return (
    isEnd && (protocol === undefined || protocol === 'tcp') && conditions.every((one) => one === undefined)
  );
}
