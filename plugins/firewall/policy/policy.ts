import { isNodeConfigOfAdd } from '../../../shared/attachments/node-config-of-add.ts';
import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import type { Invocation } from '../../../shared/cni/plugin.ts';
import { NODE_CONFIG_FILE, readNodeConfig, validNodeConfig } from '../../../shared/config/node-config.ts';
import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import { linkByName } from '../../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../../shared/kernel/rtnetlink/rtnetlink.ts';
import {
  changeNft,
  hasNftables,
  readNft,
  removeFromNft,
} from '../../../shared/packetfilter/nftables/change.ts';
import {
  addChain,
  addElements,
  addSet,
  addTable,
  deleteElements,
  deleteTable,
  flushChain,
  ruleRequest,
} from '../../../shared/packetfilter/nftables/messages.ts';
import type { NftReader } from '../../../shared/packetfilter/nftables/reader.ts';
import { ruleText } from '../../../shared/packetfilter/nftables/text.ts';
import type { FirewallPlan } from '../plan.ts';
import {
  isPolicy,
  networkElements,
  NETWORKS,
  POLICY_SETS,
  POLICY_TABLE,
  policyChains,
  type NodePolicy,
  type PolicyChain,
} from './policy-table.ts';

/**
 * For ADD: makes the table match the node's policy, and the container's network subject to it. The policy is the node's: it holds for the
 * containers that run already, and a policy that was removed from the file is removed for all.
 * @throws CniError 7 for a mistake in the file
 */
export function enforcePolicy({ hostInterfaces }: Pick<FirewallPlan, 'hostInterfaces'>): void {
  const policy = readNodeConfig();
  if (!isPolicy(policy)) {
    removeFromNft({ what: 'remove the policy of the node' }, (reader) =>
      reader.hasTable(POLICY_TABLE) ? [deleteTable(POLICY_TABLE)] : [],
    );
    return;
  }
  if (!hasNftables()) {
    throw new CniError(CniCode.Internal, `"isolation" and "egress" of ${NODE_CONFIG_FILE} need nf_tables`, {
      details: 'modprobe nf_tables, or remove both keys',
    });
  }
  changeNft({ what: 'enforce the policy of the node' }, (reader) =>
    missingRequests(reader, policy, hostInterfaces),
  );
}

/**
 * For CHECK. A policy that the file states since after the container's ADD is a warning; one that ADD enforced and that is not complete is
 * damage.
 * @throws CniError 999
 */
export function checkPolicy(
  call: Invocation<unknown>,
  { hostInterfaces }: FirewallPlan,
  policy: NodePolicy,
): void {
  if (!isPolicy(policy)) return;
  const missing = hasNftables()
    ? readNft((reader) => missingFromTable(reader, policy, hostInterfaces))
    : 'this kernel has no nf_tables';
  if (missing === undefined) return;
  if (isNodeConfigOfAdd(call))
    throw new CniError(CniCode.Internal, `the policy of ${NODE_CONFIG_FILE} is not complete: ${missing}`);
  call.warn(
    `the policy of ${NODE_CONFIG_FILE} has changed since ADD of container ${call.containerId}; the next ADD enforces it: ${missing}`,
  );
}

/** For doctor: how the table differs from the policy of the file; undefined if it does not. */
export function policyDifference(policy: NodePolicy, bridges: readonly string[]): string | undefined {
  if (!hasNftables()) return isPolicy(policy) ? 'this kernel has no nf_tables' : undefined;
  return readNft((reader) => {
    if (!isPolicy(policy))
      return reader.hasTable(POLICY_TABLE)
        ? 'the file has none, and table inet weft_policy is there'
        : undefined;
    return bridges
      .map((bridge) => missingFromTable(reader, policy, [bridge]))
      .find((one) => one !== undefined);
  });
}

/**
 * For repair: the requests that complete the policy that an ADD of these containers has enforced. One that the file states only since then waits
 * for the next ADD.
 */
export function restorePolicy(
  reader: NftReader,
  enforced: readonly { readonly call: Invocation<unknown>; readonly plan: FirewallPlan }[],
): NetlinkRequest[] {
  const [first] = enforced;
  if (first === undefined) return [];
  const policy = validNodeConfig(first.call.warn);
  if (!isPolicy(policy)) return [];
  if (!enforced.some(({ call }) => isNodeConfigOfAdd(call))) return [];
  const interfaces = new Set(enforced.flatMap(({ plan }) => networkInterfaces(plan.hostInterfaces)));
  const [own, ...rest] = [...interfaces];
  return [
    ...missingRequests(reader, policy, own === undefined ? [] : [own]),
    ...rest
      .flatMap((name) => missingElements(reader, [name]))
      .map((element) => addElements(element.set, [element])),
  ];
}

/** For GC: interfaces that no longer exist. */
export function collectPolicy(): void {
  removeFromNft({ what: 'remove interfaces that no longer exist from the policy of the node' }, (reader) => {
    const names = reader.elements(NETWORKS).map(({ key }) => key.toString('utf8').replace(/\0.*$/s, ''));
    if (names.length === 0) return [];
    using rtnetlink = Rtnetlink.open();
    return names
      .filter((name) => linkByName(rtnetlink, name) === undefined)
      .flatMap(networkElements)
      .map(({ set, key }) => deleteElements(set, [key]));
  });
}

/** The interfaces by which packets of the containers enter the host: the bridge, and the gateway interface of a VLAN. */
function networkInterfaces([bridge, ...others]: readonly string[]): string[] {
  return bridge === undefined ? [] : [bridge, ...others.filter((name) => name.startsWith(`${bridge}.`))];
}

function missingRequests(
  reader: NftReader,
  policy: NodePolicy,
  hostInterfaces: readonly string[],
): NetlinkRequest[] {
  const broken = policyChains(policy).filter((one) => !isComplete(reader, one));
  const elements = missingElements(reader, hostInterfaces);
  return [
    ...(broken.length === 0
      ? []
      : [
          addTable(POLICY_TABLE),
          ...POLICY_SETS.map((set, at) => addSet(set, at + 1)),
          ...policyChains(policy).map(({ chain }) => addChain(chain)),
          ...broken.flatMap(({ chain, rules }) => [flushChain(chain), ...rules.map(ruleRequest)]),
        ]),
    ...elements.map((element) => addElements(element.set, [element])),
  ];
}

function missingFromTable(
  reader: NftReader,
  policy: NodePolicy,
  hostInterfaces: readonly string[],
): string | undefined {
  if (!reader.hasTable(POLICY_TABLE)) return 'table inet weft_policy is missing';
  for (const { chain, rules } of policyChains(policy)) {
    const standing = reader.rules(chain);
    const lost = rules.find((rule) => !standing.some((one) => one.is(rule)));
    if (lost !== undefined)
      return `chain ${chain.name} of table inet weft_policy lacks the rule: ${ruleText(lost)}`;
    if (!isComplete(reader, { chain, rules }))
      return `chain ${chain.name} of table inet weft_policy has other rules than those of the policy`;
  }
  const [element] = missingElements(reader, hostInterfaces);
  return element && `set ${element.set.name} of table inet weft_policy lacks ${element.key.join(' . ')}`;
}

function missingElements(
  reader: NftReader,
  hostInterfaces: readonly string[],
): ReturnType<typeof networkElements> {
  return networkInterfaces(hostInterfaces)
    .flatMap(networkElements)
    .filter(({ set, key }) => reader.element(set, key) === undefined);
}

/** Exactly the policy's rules, in their order. Rules cannot exist without the sets and chains that they name. */
function isComplete(reader: NftReader, { chain, rules }: PolicyChain): boolean {
  const standing = reader.rules(chain);
  return standing.length === rules.length && rules.every((rule, at) => standing[at]?.is(rule) === true);
}
