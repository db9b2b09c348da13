import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import {
  addChain,
  addElements,
  addSet,
  addTable,
  deleteElements,
  flushChain,
  ruleRequest,
} from '../../../shared/packetfilter/nftables/messages.ts';
import { VerdictCode } from '../../../shared/packetfilter/nftables/expressions.ts';
import type { NftElement, NftStatement } from '../../../shared/packetfilter/nftables/model.ts';
import type { NftReader, StandingElement } from '../../../shared/packetfilter/nftables/reader.ts';
import type { FirewallSettings } from '../config.ts';
import {
  ADMIN_CHAINS,
  adminChain,
  CHAINS,
  containerElement,
  FAMILIES,
  FIXED_CHAINS,
  policyElements,
  SETS,
  TABLE,
  type FixedChain,
} from './objects.ts';
import type { Subject } from '../plan.ts';

/** What is to be committed so that the container is let through; nothing when it is. */
export function putRequests(view: NftReader, settings: FirewallSettings, subject: Subject): NetlinkRequest[] {
  return [
    ...skeleton(view),
    ...admin(view, settings.adminChain),
    ...policyOf(settings, subject).flatMap((element) => policyRequests(view, element)),
    ...containerElements(subject).flatMap((element) => containerRequests(view, element)),
  ];
}

export function containerElements(subject: Subject): NftElement[] {
  return FAMILIES.flatMap((family) =>
    subject.addresses[family].map((host) => containerElement(subject, family, host)),
  );
}

export function policyOf({ ingressPolicy }: FirewallSettings, { bridge }: Subject): NftElement[] {
  return bridge === undefined ? [] : policyElements(bridge, ingressPolicy);
}

/** Of two networks on one bridge the stricter one counts, in whatever order they come: what is isolated stays so. */
export function isEnough(wanted: NftElement, standing: StandingElement | undefined): boolean {
  if (standing === undefined) return false;
  return wanted.data === undefined || wanted.data.kind !== 'drop' || standing.verdict === VerdictCode.drop;
}

export function jumpTo(chain: string): NftStatement[] {
  return [{ kind: 'jump', chain }];
}

/** Rules that stand cannot do so without the sets and chains that they name, so looking at them is enough. */
function skeleton(view: NftReader): NetlinkRequest[] {
  const broken = FIXED_CHAINS.filter((fixed) => !isAsFixed(view, fixed));
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

/** Nothing but our rules, in their order. */
function isAsFixed(view: NftReader, { chain, rules }: FixedChain): boolean {
  const standing = view.rules(chain);
  return (
    standing.length === rules.length &&
    rules.every((statements, at) => standing[at]?.is({ statements }) === true)
  );
}

/** The operator's chain is made once and never looked into. */
function admin(view: NftReader, name: string): NetlinkRequest[] {
  const statements = jumpTo(name);
  if (view.rules(ADMIN_CHAINS).some((standing) => standing.is({ statements }))) return [];
  return [addChain(adminChain(name)), ruleRequest({ chain: ADMIN_CHAINS, statements })];
}

function policyRequests(view: NftReader, element: NftElement): NetlinkRequest[] {
  const standing = view.element(element.set, element.key);
  return isEnough(element, standing) ? [] : replaced(element, standing);
}

/** An address that another container had, whose DEL never came, is this one's now. */
function containerRequests(view: NftReader, element: NftElement): NetlinkRequest[] {
  const standing = view.element(element.set, element.key);
  return standing?.comment === element.comment && standing !== undefined ? [] : replaced(element, standing);
}

function replaced(element: NftElement, standing: StandingElement | undefined): NetlinkRequest[] {
  const { set, key } = element;
  return [...(standing === undefined ? [] : [deleteElements(set, [key])]), addElements(set, [element])];
}
