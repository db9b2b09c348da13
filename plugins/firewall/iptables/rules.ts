import { isUnmanaged, sameRule } from '../../../shared/packetfilter/compare.ts';
import type {
  EnsuredRule,
  Match,
  Rule,
  TableChange,
  TableState,
} from '../../../shared/packetfilter/ruleset.ts';
import type { IngressPolicy } from '../config.ts';
import type { FirewallPlan } from '../plan.ts';

export const FORWARD_CHAIN = 'CNI-FORWARD';
const STAGE_1 = 'CNI-ISOLATION-STAGE-1';
const STAGE_2 = 'CNI-ISOLATION-STAGE-2';

/**
 * Table filter as a container needs it; chains, order and comments are the reference's:
 *
 *     FORWARD                  (with an ingress policy:) -> CNI-ISOLATION-STAGE-1
 *                              -> CNI-FORWARD
 *     CNI-FORWARD              -> the operator's chain
 *                              to the container, of known connections: ACCEPT
 *                              from the container: ACCEPT
 *     CNI-ISOLATION-STAGE-1    (isolated:) from the bridge to the same bridge: DROP
 *                              from the bridge to anything else -> CNI-ISOLATION-STAGE-2
 *                              RETURN
 *     CNI-ISOLATION-STAGE-2    to the bridge: DROP
 *                              RETURN
 *
 * @param addresses of the container, one family, as hosts: `10.88.0.2/32`
 */
export function firewallChange(
  { adminChain, ingressPolicy, bridge }: Pick<FirewallPlan, 'adminChain' | 'ingressPolicy' | 'bridge'>,
  addresses: readonly string[],
): Omit<TableChange, 'family' | 'table'> {
  const isolated = ingressPolicy !== 'open' && bridge !== undefined;
  return {
    ensureChains: [FORWARD_CHAIN, adminChain, ...(isolated ? [STAGE_1, STAGE_2] : [])],
    ensureRules: [
      { chain: 'FORWARD', rule: toForwardChain, at: 'first', behind: [STAGE_1] },
      { chain: FORWARD_CHAIN, rule: toAdminChain(adminChain), at: 'prepended' },
      ...addresses.flatMap((address) => acceptRules(address)),
      ...(isolated ? isolationRules(ingressPolicy, bridge) : []),
    ],
  };
}

/** A container's own rules, which DEL removes. Other containers may need the chains and the rules of a bridge. */
export function acceptRules(address: string): EnsuredRule[] {
  const known: Rule = {
    destination: { value: address },
    matches: [{ kind: 'conntrack', states: ['RELATED', 'ESTABLISHED'] }],
    target: { kind: 'accept' },
  };
  const out: Rule = { source: { value: address }, target: { kind: 'accept' } };
  return [known, out].map((rule) => ({ chain: FORWARD_CHAIN, rule, at: 'last' }));
}

/** The address that an accept rule is for, as a host; undefined for any other rule. */
export function acceptedAddress({ source, destination, target }: Rule): string | undefined {
  return target.kind === 'accept' ? (source ?? destination)?.value : undefined;
}

/** The operators' chains that CNI-FORWARD leads to. */
export function adminChains(state: TableState): string[] {
  return (state.chains.get(FORWARD_CHAIN) ?? []).flatMap((rule) =>
    !isUnmanaged(rule) && rule.target.kind === 'jump' && sameRule(rule, toAdminChain(rule.target.chain))
      ? [rule.target.chain]
      : [],
  );
}

/**
 * The ingress policy that a bridge has: the wanted one unless nothing in the isolation chains names the bridge, or the rules of the
 * other one are complete. (Incomplete rules of the wanted policy are damage.)
 */
export function policyOfBridge(
  state: TableState,
  { ingressPolicy, bridge }: Pick<FirewallPlan, 'ingressPolicy' | 'bridge'>,
): IngressPolicy {
  if (ingressPolicy === 'open' || bridge === undefined) return ingressPolicy;
  const names = (rule: Rule): boolean =>
    [rule.inInterface, rule.outInterface].some((one) => one?.value === bridge);
  const rules = [STAGE_1, STAGE_2].flatMap((chain) => state.chains.get(chain) ?? []);
  if (!rules.some((rule) => !isUnmanaged(rule) && names(rule))) return 'open';
  const other = ingressPolicy === 'isolated' ? 'same-bridge' : 'isolated';
  const isOther = isolationRules(other, bridge).every(({ chain, rule }) => state.holds(chain, rule));
  return isOther ? other : ingressPolicy;
}

const toForwardChain: Rule = {
  matches: [comment('CNI firewall plugin rules')],
  target: { kind: 'jump', chain: FORWARD_CHAIN },
};

function toAdminChain(chain: string): Rule {
  return {
    matches: [comment('CNI firewall plugin admin overrides')],
    target: { kind: 'jump', chain },
  };
}

/** Its jump comes last in this list, because it must come first in its chain. */
function isolationRules(policy: Exclude<IngressPolicy, 'open'>, bridge: string): EnsuredRule[] {
  const matches = [comment(`CNI firewall plugin rules (ingressPolicy: ${policy})`)];
  const [from, to] = [{ inInterface: { value: bridge } }, { outInterface: { value: bridge } }];
  const drop = { kind: 'drop' } as const;
  const elsewhere: Rule = {
    ...from,
    outInterface: { value: bridge, negated: true },
    matches,
    target: { kind: 'jump', chain: STAGE_2 },
  };
  const back = { matches, target: { kind: 'return' } } as const;
  return [
    { chain: STAGE_1, rule: elsewhere, at: 'prepended' },
    ...(policy === 'isolated'
      ? [{ chain: STAGE_1, rule: { ...from, ...to, matches, target: drop }, at: 'prepended' } as const]
      : []),
    { chain: STAGE_1, rule: back, at: 'last' },
    { chain: STAGE_2, rule: { ...to, matches, target: drop }, at: 'prepended' },
    { chain: STAGE_2, rule: back, at: 'last' },
    {
      chain: 'FORWARD',
      rule: { matches, target: { kind: 'jump', chain: STAGE_1 } },
      at: 'first',
      behind: [STAGE_1],
    },
  ];
}

function comment(text: string): Match {
  return { kind: 'comment', comment: text };
}
