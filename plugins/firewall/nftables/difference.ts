import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import { VerdictCode } from '../../../shared/packetfilter/nftables/expressions.ts';
import {
  addChain,
  addElements,
  addSet,
  addTable,
  deleteElements,
  flushChain,
  ruleRequest,
} from '../../../shared/packetfilter/nftables/messages.ts';
import type { NftElement, NftStatement, NftTable } from '../../../shared/packetfilter/nftables/model.ts';
import type { NftReader, StandingElement } from '../../../shared/packetfilter/nftables/reader.ts';
import { ruleText } from '../../../shared/packetfilter/nftables/text.ts';
import type { ConfigurationChange } from '../backend.ts';
import type { IngressPolicy } from '../config.ts';
import { FAMILIES, type FirewallPlan } from '../plan.ts';
import {
  ADMIN_CHAINS,
  adminChain,
  CHAINS,
  containerElement,
  FIXED_CHAINS,
  policyElements,
  SETS,
  TABLE,
  type FixedChain,
} from './objects.ts';

/** For ADD and repair: what to commit so that the containers are let through; nothing if they are. */
export function missingRequests(reader: NftReader, plans: readonly FirewallPlan[]): NetlinkRequest[] {
  const adminChains = new Set(plans.map((plan) => plan.adminChain));
  return [
    ...fixedPart(reader),
    ...[...adminChains].flatMap((chain) => jumpToAdminChain(reader, chain)),
    ...strictestPolicies(plans).flatMap((element) => policyRequests(reader, element)),
    ...plans.flatMap(containerElements).flatMap((element) => containerRequests(reader, element)),
  ];
}

/** For CHECK: a sentence about the first thing that is missing. */
export function missingFromTable(
  reader: NftReader,
  plan: FirewallPlan,
  changed: (change: ConfigurationChange) => void,
): string | undefined {
  if (!reader.hasTable(TABLE)) return `table ${nameOf(TABLE)} is missing`;
  for (const chain of FIXED_CHAINS) {
    const missing = missingRule(reader, chain);
    if (missing !== undefined) return missing;
  }
  return (
    missingJump(reader, plan.adminChain, changed) ??
    missingPolicy(reader, plan, changed) ??
    missingContainer(reader, plan)
  );
}

/** As {@link missingFromTable}, for a container without a back end's rules in the table. Without the table there never was a policy. */
export function missingIngressPolicy(
  reader: NftReader,
  plan: FirewallPlan,
  changed: (change: ConfigurationChange) => void,
): string | undefined {
  if (reader.hasTable(TABLE)) return missingFromTable(reader, plan, changed);
  changed(policyChange(plan, 'open'));
  return undefined;
}

function containerElements(plan: FirewallPlan): NftElement[] {
  return FAMILIES.flatMap((family) =>
    plan.addresses[family].map((host) => containerElement(plan, family, host)),
  );
}

function policyOf({ ingressPolicy, bridge }: FirewallPlan): NftElement[] {
  return bridge === undefined ? [] : policyElements(bridge, ingressPolicy);
}

/** One element per key. */
function strictestPolicies(plans: readonly FirewallPlan[]): NftElement[] {
  const strictest = new Map<string, NftElement>();
  for (const element of plans.flatMap(policyOf)) {
    const key = `${element.set.name} ${element.key.join(' ')}`;
    if (!strictest.has(key) || element.data?.kind === 'drop') strictest.set(key, element);
  }
  return [...strictest.values()];
}

/** Of two networks on one bridge the stricter policy wins, in whatever order they are added: what is isolated stays isolated. */
function isEnough(wanted: NftElement, standing: StandingElement | undefined): boolean {
  if (standing === undefined) return false;
  return wanted.data === undefined || wanted.data.kind !== 'drop' || standing.verdict === VerdictCode.drop;
}

function jumpTo(chain: string): NftStatement[] {
  return [{ kind: 'jump', chain }];
}

/** Rules cannot exist without the sets and chains that they name, so it is enough to compare the rules. */
function fixedPart(reader: NftReader): NetlinkRequest[] {
  const broken = FIXED_CHAINS.filter((fixed) => !isAsFixed(reader, fixed));
  if (broken.length === 0) return [];
  return [
    addTable(TABLE),
    ...SETS.map((set, at) => addSet(set, at + 1)),
    ...CHAINS.map(addChain),
    ...broken.flatMap(({ chain, rules }) => [
      flushChain(chain),
      ...rules.map((statements) => ruleRequest({ chain, statements })),
    ]),
  ];
}

/** Exactly the plugin's rules, in their order. */
function isAsFixed(reader: NftReader, { chain, rules }: FixedChain): boolean {
  const standing = reader.rules(chain);
  return (
    standing.length === rules.length &&
    rules.every((statements, at) => standing[at]?.is({ statements }) === true)
  );
}

/** The operator's chain is created once; its rules are never read. */
function jumpToAdminChain(reader: NftReader, name: string): NetlinkRequest[] {
  const statements = jumpTo(name);
  if (reader.rules(ADMIN_CHAINS).some((standing) => standing.is({ statements }))) return [];
  return [addChain(adminChain(name)), ruleRequest({ chain: ADMIN_CHAINS, statements })];
}

function policyRequests(reader: NftReader, element: NftElement): NetlinkRequest[] {
  const standing = reader.element(element.set, element.key);
  return isEnough(element, standing) ? [] : replaced(element, standing);
}

/** An address that another container had, whose DEL never came, is this container's now. */
function containerRequests(reader: NftReader, element: NftElement): NetlinkRequest[] {
  const standing = reader.element(element.set, element.key);
  return standing !== undefined && standing.comment === element.comment ? [] : replaced(element, standing);
}

function replaced(element: NftElement, standing: StandingElement | undefined): NetlinkRequest[] {
  const { set, key } = element;
  return [...(standing === undefined ? [] : [deleteElements(set, [key])]), addElements(set, [element])];
}

function missingRule(reader: NftReader, { chain, rules }: FixedChain): string | undefined {
  const where = `chain ${chain.name} of table ${nameOf(chain.table)}`;
  if (!reader.hasChain(chain)) return `${where} is missing`;
  const standing = reader.rules(chain);
  const lost = rules.find((statements) => !standing.some((rule) => rule.is({ statements })));
  if (lost !== undefined) return `rule is missing from ${where}: ${ruleText({ statements: lost })}`;
  const inOrder = rules.every((statements, at) => standing[at]?.is({ statements }) === true);
  if (inOrder && standing.length === rules.length) return undefined;
  return `${where} holds rules of other programs, or its own in another order`;
}

function missingJump(
  reader: NftReader,
  name: string,
  changed: (change: ConfigurationChange) => void,
): string | undefined {
  const statements = jumpTo(name);
  const rules = reader.rules(ADMIN_CHAINS);
  if (rules.some((rule) => rule.is({ statements }))) return undefined;
  if (rules.length > 0) {
    const found = `chain ${ADMIN_CHAINS.name} of table ${nameOf(ADMIN_CHAINS.table)} does not lead to ${name}`;
    changed({ key: 'iptablesAdminChainName', found });
    return undefined;
  }
  return `rule is missing from chain ${ADMIN_CHAINS.name} of table ${nameOf(ADMIN_CHAINS.table)}: ${ruleText({ statements })}`;
}

/** Neither element: the bridge never had a policy. Both, but of the other policy: the policy changed. One alone: damage. */
function missingPolicy(
  reader: NftReader,
  plan: FirewallPlan,
  changed: (change: ConfigurationChange) => void,
): string | undefined {
  const elements = policyOf(plan);
  const standing = elements.map(({ set, key }) => reader.element(set, key));
  const lost = elements.find((element, at) => !isEnough(element, standing[at]));
  if (lost === undefined) return undefined;
  const count = standing.filter((element) => element !== undefined).length;
  if (count === 1) return `${elementText(lost)} is missing from ${setText(lost)}`;
  changed(policyChange(plan, count === 0 ? 'open' : 'same-bridge'));
  return undefined;
}

function policyChange({ bridge, ingressPolicy }: FirewallPlan, found: IngressPolicy): ConfigurationChange {
  return {
    key: 'ingressPolicy',
    found: `bridge ${bridge ?? ''} has the policy ${found} and not ${ingressPolicy}`,
  };
}

function missingContainer(reader: NftReader, plan: FirewallPlan): string | undefined {
  for (const element of containerElements(plan)) {
    const standing = reader.element(element.set, element.key);
    if (standing === undefined) return `${elementText(element)} is missing from ${setText(element)}`;
    if (standing.comment !== element.comment) {
      return `${elementText(element)} of ${setText(element)} is another container's (${standing.comment ?? 'no comment'})`;
    }
  }
  return undefined;
}

function nameOf({ family, name }: NftTable): string {
  return `${family} ${name}`;
}

function setText({ set }: NftElement): string {
  return `${set.data === undefined ? 'set' : 'map'} ${set.name} of table ${nameOf(set.table)}`;
}

function elementText({ key, data }: NftElement): string {
  return `${key.join(' . ')}${data === undefined ? '' : ` : ${data.kind}`}`;
}
