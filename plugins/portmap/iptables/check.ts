import { formatAddress, parseAddress, parseCidr } from '../../../shared/net/address.ts';
import { isUnmanaged, missingFrom, ruleKey } from '../../../shared/packetfilter/compare.ts';
import { ruleText } from '../../../shared/packetfilter/iptables/render.ts';
import { portmapChain } from '../../../shared/packetfilter/names.ts';
import { PortRanges } from '../../../shared/packetfilter/port-ranges.ts';
import type {
  Match,
  PortRange,
  Rule,
  TableState,
  UnmanagedRule,
} from '../../../shared/packetfilter/ruleset.ts';
import type { ChangedKeys, ForwardedPorts, PortForwarding } from '../backend.ts';
import { isProtocol } from '../mapping.ts';
import {
  DNAT_CHAIN,
  entryRule,
  jumpsToDnat,
  markRules,
  MASQ_CHAIN,
  mappingRules,
  SETMARK_CHAIN,
} from './plan.ts';
import { readConditions } from './conditions.ts';

/**
 * The first rule of a container that is missing, as a phrase for the error; undefined when its ports work as they were set up. Settings
 * that differ from those of its ADD are no damage: their keys go to `changed`.
 */
export function missingRule(
  state: TableState,
  forwarding: PortForwarding,
  changed: ChangedKeys,
): string | undefined {
  const chain = portmapChain(forwarding);
  if (!state.chains.has(chain)) return missingChain(state, chain);
  const own = (state.chains.get(chain) ?? []).filter(isRule);
  const [shared] = missingFrom(state, { ensureChains: [DNAT_CHAIN], ensureRules: jumpsToDnat });
  return (
    shared ??
    missingMapping(state, forwarding, own) ??
    missingMark(state, forwarding, own, changed) ??
    missingEntry(state, forwarding, changed)
  );
}

/** The ports that a container's chain forwards, read back from its DNAT rules. */
export function forwardedBy(state: TableState, chain: string): ForwardedPorts[] {
  return (state.chains.get(chain) ?? []).flatMap((rule) => {
    const ports = isUnmanaged(rule) ? undefined : forwardedPorts(rule);
    return ports === undefined ? [] : [ports];
  });
}

function missingMapping(
  state: TableState,
  forwarding: PortForwarding,
  own: readonly Rule[],
): string | undefined {
  const keys = new Set(own.map(ruleKey));
  const wanted = forwarding.mappings.flatMap((mapping) => mappingRules(withoutSnat(forwarding), mapping));
  const missing = wanted.find((rule) => !keys.has(ruleKey(rule)));
  return missing && missingText(state, portmapChain(forwarding), missing);
}

/**
 * The rules that select packets for masquerading. ADD writes them for every mapping or for none, so the present ones tell the settings of
 * that ADD; a set that no settings make is damaged.
 */
function missingMark(
  state: TableState,
  forwarding: PortForwarding,
  own: readonly Rule[],
  changed: ChangedKeys,
): string | undefined {
  const { settings } = forwarding;
  const keys = new Set(own.map(ruleKey));
  const missingWith = (masqAll: boolean, markChain: string): Rule | undefined => {
    const then = {
      ...forwarding,
      settings: { ...settings, snat: true, masqAll, externalSetMarkChain: markChain },
    };
    return then.mappings
      .flatMap((mapping) => mappingRules(then, mapping))
      .find((rule) => !keys.has(ruleKey(rule)));
  };
  const chains = new Set(own.flatMap(({ target }) => (target.kind === 'jump' ? [target.chain] : [])));
  if (chains.size === 0) {
    if (settings.snat) changed.add('snat');
    return undefined;
  }
  const today = settings.externalSetMarkChain ?? SETMARK_CHAIN;
  const candidates = [...chains].flatMap((chain) => [
    { chain, masqAll: settings.masqAll },
    { chain, masqAll: !settings.masqAll },
  ]);
  const setUp = candidates.find(({ chain, masqAll }) => missingWith(masqAll, chain) === undefined);
  if (setUp === undefined) {
    const rule = missingWith(settings.masqAll, chains.has(today) ? today : ([...chains][0] ?? today));
    return rule && missingText(state, portmapChain(forwarding), rule);
  }
  if (!settings.snat) changed.add('snat');
  else if (setUp.masqAll !== settings.masqAll) changed.add('masqAll');
  if (settings.snat && setUp.chain !== today) changed.add('externalSetMarkChain');
  if (setUp.chain !== SETMARK_CHAIN) {
    return state.chains.has(setUp.chain) ? undefined : missingChain(state, setUp.chain);
  }
  return missingMasquerade(state, forwarding, changed);
}

/** CNI-HOSTPORT-SETMARK sets the bits of all networks; one that CNI-HOSTPORT-MASQ masquerades is enough. */
function missingMasquerade(
  state: TableState,
  { settings }: PortForwarding,
  changed: ChangedKeys,
): string | undefined {
  const missingBit = (bit: number): string | undefined =>
    missingFrom(state, { ensureChains: [SETMARK_CHAIN, MASQ_CHAIN], ensureRules: markRules(bit) })[0];
  const missing = missingBit(settings.markMasqBit);
  if (missing === undefined) return undefined;
  const bits = (state.chains.get(SETMARK_CHAIN) ?? []).flatMap((rule) =>
    !isUnmanaged(rule) && rule.target.kind === 'mark' ? [Math.log2(rule.target.value)] : [],
  );
  if (!bits.some((bit) => Number.isInteger(bit) && missingBit(bit) === undefined)) return missing;
  if (settings.snat && settings.externalSetMarkChain === undefined) changed.add('markMasqBit');
  return undefined;
}

/**
 * The rules that jump to the container's chain. How ports are distributed over them does not matter: another release, or the reference,
 * may distribute them differently.
 */
function missingEntry(
  state: TableState,
  forwarding: PortForwarding,
  changed: ChangedKeys,
): string | undefined {
  const { family, settings, mappings } = forwarding;
  const rangesByEntry = new Map<string, PortRange[]>();
  for (const rule of state.jumps(DNAT_CHAIN, portmapChain(forwarding)).filter(isRule)) {
    const key = entryKey(rule);
    const ranges = rangesByEntry.get(key);
    if (ranges === undefined) rangesByEntry.set(key, [...portsOf(rule)]);
    else ranges.push(...portsOf(rule));
  }
  const present = new Map([...rangesByEntry].map(([key, ranges]) => [key, new PortRanges(ranges)]));
  const conditions = readConditions(family, settings.conditions[family]);
  const wanted = mappings.flatMap((mapping) =>
    conditions.map((condition) => entryRule(forwarding, mapping, condition)),
  );
  const missing = wanted.find(
    (rule) => !portsOf(rule).every((range) => present.get(entryKey(rule))?.contains(range)),
  );
  if (missing === undefined) return undefined;
  // Other conditions: every mapping must have the same ones.
  const sets = mappings.map(({ protocol, hostPort, range }) =>
    [...present]
      .filter(([key, ranges]) => {
        return (
          protocolOf(key) === protocol && ranges.contains({ first: hostPort, last: hostPort + range - 1 })
        );
      })
      .map(([key]) => key.slice(protocol.length))
      .toSorted()
      .join('\n'),
  );
  if (sets[0] === '' || sets.some((set) => set !== sets[0])) return missingText(state, DNAT_CHAIN, missing);
  changed.add(family === 'ipv4' ? 'conditionsV4' : 'conditionsV6');
  return undefined;
}

/** `tcp ` and all of the rule but its ports; arguments that only iptables can print may come back in another spelling. */
function entryKey({ protocol, matches = [], ...rest }: Rule): string {
  const others = matches
    .filter(({ kind }) => kind !== 'multiport')
    .map((match): Match => (match.kind === 'rawArgs' ? { kind: 'rawArgs', args: ['-m', '*'] } : match));
  return `${protocol ?? ''} ${ruleKey({ ...rest, matches: others })}`;
}

function protocolOf(key: string): string {
  return key.slice(0, key.indexOf(' '));
}

function portsOf({ matches = [] }: Rule): readonly PortRange[] {
  return matches.find((match) => match.kind === 'multiport')?.destinationPorts ?? [];
}

function withoutSnat(forwarding: PortForwarding): PortForwarding {
  return { ...forwarding, settings: { ...forwarding.settings, snat: false } };
}

function missingChain({ family }: TableState, chain: string): string {
  return `chain ${chain} is missing from table nat (${family})`;
}

function missingText({ family }: TableState, chain: string, rule: Rule): string {
  return `rule is missing from chain ${chain} of table nat (${family}): ${ruleText(rule)}`;
}

function isRule(rule: Rule | UnmanagedRule): rule is Rule {
  return !isUnmanaged(rule);
}

function forwardedPorts({ protocol, destination, matches = [], target }: Rule): ForwardedPorts | undefined {
  const port = matches.find((match) => match.kind === 'port')?.destinationPort;
  if (target.kind !== 'dnat' || port === undefined || !isProtocol(protocol)) return undefined;
  const containerAddress = addressIn(target.to);
  if (containerAddress === undefined) return undefined;
  const host = destination === undefined ? undefined : parseCidr(destination.value)?.address;
  return { protocol, ...port, address: host && formatAddress(host), containerAddress };
}

/** The address in `10.88.0.2:80`, `[fd00::2]:80` and `fd00::2`. */
function addressIn(to: string): string | undefined {
  const text = /^\[([^\]]+)\]/.exec(to)?.[1] ?? (parseAddress(to) === undefined ? to.split(':')[0] : to);
  const address = parseAddress(text ?? '');
  return address && formatAddress(address);
}
