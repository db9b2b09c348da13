import {
  containsAddress,
  formatAddress,
  formatCidr,
  networkOf,
  parseAddress,
  parseCidr,
  type AddressFamily,
  type Cidr,
  withoutPrefixLength,
} from '../../../shared/net/address.ts';
import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import type {
  Family,
  UnmanagedRule,
  Match,
  PlannedChange,
  Rule,
  TableChange,
  TableState,
} from '../../../shared/packetfilter/ruleset.ts';
import {
  commentOf,
  distinctRules,
  isUnmanaged,
  missingFrom,
  sameRule,
} from '../../../shared/packetfilter/compare.ts';
import type { Trace } from '../../../shared/attachments/leftover.ts';
import {
  attachmentOfComment,
  masqueradeChain,
  masqueradeComment,
  type Attachment,
} from '../../../shared/packetfilter/names.ts';
import {
  applyWherePossible,
  chooseDriver,
  driversWithRules,
  missingEverywhere,
  otherDrivers,
  removeEverywhere,
} from '../../../shared/packetfilter/select.ts';
import type { DesiredChange } from '../../../shared/packetfilter/desired.ts';
import { emptyTable } from '../../../shared/packetfilter/iptables/save-restore.ts';
import { stateOf } from '../../../shared/packetfilter/table.ts';
import type { Masqueraded } from '../plan.ts';

/**
 * Masquerading with iptables in the reference's shape (pkg/ip/ipmasq_iptables_linux.go), table nat:
 *
 *     POSTROUTING   -s <address> "name: … id: …" -> CNI-<hash>
 *     CNI-<hash>    -d <own subnet>     ACCEPT         (traffic within the network keeps its source address)
 *                   ! -d <multicast>    MASQUERADE
 *
 * The chain belongs to (network, container): two interfaces of one container on one network share it. Each address has its own jump, and
 * the chain exists until its last jump is removed.
 */
export const iptables = {
  /** The programs are looked up at each use; ADD names a missing one. */
  ready: (): void => undefined,

  /** Rules of an earlier ADD may be in the tables of the other variant of iptables. */
  add: (attachment: Attachment, addresses: Masqueraded, warn: (line: string) => void): void => {
    chooseDriver().apply(masqueradeChange({ ...attachment, ...addresses }));
    for (const driver of otherDrivers()) {
      applyWherePossible(driver, masqueradeRemoval({ ...attachment, keep: addresses.keep }), warn);
    }
  },

  remove: (attachment: Attachment, keep: readonly string[], warn: (line: string) => void): void =>
    removeEverywhere(masqueradeRemoval({ ...attachment, keep }), warn),

  missing: (attachment: Attachment, addresses: Masqueraded): string | undefined => {
    for (const change of masqueradeChange({ ...attachment, ...addresses })) {
      const missing = missingEverywhere(change.family, (driver) =>
        missingOfFamily(change, (...table) => driver.read(...table)),
      );
      if (missing !== undefined) return missing;
    }
    return undefined;
  },

  isPresent: ({ network, containerId }: Attachment): boolean => {
    const chain = masqueradeChain({ network, containerId });
    return driversWithRules().some((driver) =>
      FAMILIES.some(
        (family) => driver.supports(family) && driver.read(family, 'nat', [chain]).chains.has(chain),
      ),
    );
  },

  collect: (
    network: string,
    valid: readonly { readonly containerID: string }[],
    warn: (line: string) => void,
  ): void => removeEverywhere(masqueradeGarbage(network, valid), warn),
};

export interface Masquerade extends Attachment {
  /** The interface's addresses with prefix length: `10.88.0.2/16`, `fd00::2/64`. */
  readonly addresses: readonly string[];
  /**
   * Addresses (with or without prefix) that the container has on its other interfaces. Their rules stay in the shared chain; jumps of any
   * other address are stale and replaced.
   */
  readonly keep?: readonly string[];
}

/** One change per family that the container has addresses of. */
export function masqueradeChange(masquerade: Masquerade): PlannedChange[] {
  const addresses = masquerade.addresses.map(requireCidr);
  return FAMILIES.flatMap((family) => {
    const own = addresses.filter(({ address }) => address.family === family);
    if (own.length === 0) return [];
    const reads = [masqueradeChain(masquerade), 'POSTROUTING'];
    return [{ family, table: 'nat' as const, reads, plan: (state) => planFamily(masquerade, own, state) }];
  });
}

/** The same without a table: what the ADDs of all of the container's interfaces on the network make together. */
export function desiredMasquerade(masquerade: Omit<Masquerade, 'keep'>): DesiredChange[] {
  return masqueradeChange(masquerade).map(({ family, table, plan }) => ({
    family,
    table,
    change: plan(stateOf(emptyTable(family, table))),
  }));
}

/**
 * Changes that remove it, found by the chain's name and not by addresses, so that no namespace or prevResult is needed. The chain stays
 * while an address of `keep` uses it. One change for each family, also those that this host lacks.
 */
export function masqueradeRemoval(attachment: Attachment & Pick<Masquerade, 'keep'>): PlannedChange[] {
  const chain = masqueradeChain(attachment);
  const plan = (state: TableState): Omit<TableChange, 'family' | 'table'> => {
    const kept = keptJumps(state, chain, attachment.keep);
    if (kept.length === 0) return { deleteChains: [chain] };
    return { setJumps: [{ chain: 'POSTROUTING', to: chain, rules: kept }] };
  };
  return FAMILIES.map((family) => ({ family, table: 'nat', reads: [chain, 'POSTROUTING'], plan }));
}

/** Changes that remove the masquerading of every container of `network` that is not in `valid`; one for each family. */
export function masqueradeGarbage(
  network: string,
  valid: readonly { readonly containerID: string }[],
): PlannedChange[] {
  const live = new Set(
    valid.map(({ containerID }) => masqueradeChain({ network, containerId: containerID })),
  );
  const ours = masqueradeComment({ network, containerId: '' }).slice(0, -1);
  const plan = (state: TableState): Omit<TableChange, 'family' | 'table'> => {
    const isGarbage = (chain: string): boolean => {
      if (!/^CNI-[0-9a-f]{24}$/.test(chain) || live.has(chain)) return false;
      const rules = [...(state.chains.get(chain) ?? []), ...state.jumps('POSTROUTING', chain)];
      return rules.some((rule) => !isUnmanaged(rule) && commentOf(rule)?.startsWith(ours) === true);
    };
    return { deleteChains: [...state.chains.keys()].filter(isGarbage) };
  };
  return FAMILIES.map((family) => ({ family, table: 'nat', plan }));
}

/** For garbage collection: the jumps of POSTROUTING, whose comments name their containers. */
export function masqueradeTraces(): Trace[] {
  return driversWithRules().flatMap((driver) =>
    FAMILIES.filter((family) => driver.supports(family)).flatMap((family) =>
      (driver.read(family, 'nat', ['POSTROUTING']).chains.get('POSTROUTING') ?? []).flatMap(
        (rule): Trace[] => {
          if (isUnmanaged(rule) || rule.target.kind !== 'jump' || rule.source === undefined) return [];
          const owner = attachmentOfComment(commentOf(rule) ?? '');
          const address = withoutPrefixLength(rule.source.value);
          const what = `chain ${rule.target.chain} of table nat (${family}, ${driver.name})`;
          return owner === undefined
            ? []
            : [{ ...owner, what, namespace: 'unknown', addresses: () => [address] }];
        },
      ),
    ),
  );
}

/** What is missing; undefined when the rules are complete. @param read the nat table of a family */
export function missingMasquerade(masquerade: Masquerade, read: ReadNat): string | undefined {
  for (const change of masqueradeChange(masquerade)) {
    const missing = missingOfFamily(change, read);
    if (missing !== undefined) return missing;
  }
  return undefined;
}

type ReadNat = (family: Family, table: 'nat', reads?: readonly string[]) => TableState;

function missingOfFamily({ family, plan, reads }: PlannedChange, read: ReadNat): string | undefined {
  const state = read(family, 'nat', reads);
  return missingFrom(state, plan(state))[0];
}

const FAMILIES: readonly AddressFamily[] = ['ipv4', 'ipv6'];
const MULTICAST = { ipv4: '224.0.0.0/4', ipv6: 'ff00::/8' } as const;

function planFamily(
  masquerade: Masquerade,
  addresses: readonly Cidr[],
  state: TableState,
): Omit<TableChange, 'family' | 'table'> {
  const chain = masqueradeChain(masquerade);
  const comment: Match = { kind: 'comment', comment: masqueradeComment(masquerade) };
  const kept = keptJumps(state, chain, masquerade.keep);
  const accepts = addresses.map((cidr) => acceptRule(cidr, comment));
  const masquerades = masqueradeRule(state.family, comment);
  const others = kept.length === 0 ? [] : (state.chains.get(chain) ?? []).filter((rule) => isAccept(rule));
  const jumps = addresses.map((cidr) => jumpRule(cidr, comment, chain));
  return {
    setChains: [{ chain, rules: [...distinctRules([...others, ...accepts]), masquerades] }],
    setJumps: [{ chain: 'POSTROUTING', to: chain, rules: inPresentOrder(state, chain, [...kept, ...jumps]) }],
  };
}

/** Jumps that exist keep their order, so that ADD again for one of two interfaces changes nothing. */
function inPresentOrder(state: TableState, chain: string, jumps: readonly Rule[]): Rule[] {
  const present = state.jumps('POSTROUTING', chain);
  const wanted = present.filter(
    (rule): rule is Rule => !isUnmanaged(rule) && jumps.some((jump) => sameRule(jump, rule)),
  );
  return distinctRules([...wanted, ...jumps]);
}

/** Jumps to the chain whose source is one of these addresses. */
function keptJumps(state: TableState, chain: string, keep: readonly string[] = []): Rule[] {
  const addresses = keep.map((text) => parseCidr(text)?.address ?? parseAddress(text));
  return state.jumps('POSTROUTING', chain).filter((rule): rule is Rule => {
    if (isUnmanaged(rule) || rule.source === undefined) return false;
    const source = parseCidr(rule.source.value);
    return addresses.some((address) => address && source && containsAddress(source, address));
  });
}

function acceptRule(cidr: Cidr, comment: Match): Rule {
  return {
    destination: { value: formatCidr(networkOf(cidr)) },
    matches: [comment],
    target: { kind: 'accept' },
  };
}

function masqueradeRule(family: Family, comment: Match): Rule {
  return {
    destination: { value: MULTICAST[family], negated: true },
    matches: [comment],
    target: { kind: 'masquerade' },
  };
}

function jumpRule({ address }: Cidr, comment: Match, chain: string): Rule {
  const whole = address.family === 'ipv4' ? 32 : 128;
  return {
    source: { value: `${formatAddress(address)}/${whole}` },
    matches: [comment],
    target: { kind: 'jump', chain },
  };
}

function isAccept(rule: Rule | UnmanagedRule): rule is Rule {
  return !isUnmanaged(rule) && rule.target.kind === 'accept';
}

function requireCidr(text: string): Cidr {
  const cidr = parseCidr(text);
  if (cidr !== undefined) return cidr;
  throw new CniError(
    CniCode.InvalidNetworkConfig,
    `cannot masquerade "${text}": an address with its prefix length is needed, such as 10.88.0.2/16`,
  );
}
