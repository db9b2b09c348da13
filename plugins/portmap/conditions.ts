import {
  familyBits,
  formatCidr,
  maskToPrefix,
  networkOf,
  parseAddress,
  parseCidr,
  type AddressFamily,
} from '../../shared/net/address.ts';
import { parseRuleArgs, type RuleParts } from '../../shared/packetfilter/iptables/parse.ts';
import type { Family, Negatable } from '../../shared/packetfilter/ruleset.ts';

/** Parts of a rule that an operator's conditions make; several when they list several addresses. */
export type Conditions = Omit<RuleParts, 'target' | 'protocol'>;

/** Whether conditions are written in iptables' language rather than nft's. */
export function isIptablesSyntax(words: readonly string[]): boolean {
  return /^[-!]/.test(words[0] ?? '');
}

/** What is wrong with conditions in iptables' language, as sentences. */
export function checkConditions(key: string, words: readonly string[]): string[] {
  if (words.some((word) => /[\0-\x1f]/.test(word))) return [`"${key}" has control characters`];
  const reserved = words.find((word) => RESERVED.has(word));
  if (reserved !== undefined)
    return [`"${key}" may only narrow the rule down, and ${reserved} does something else`];
  const parts = parseRuleArgs(words);
  if (parts === undefined) {
    return [`"${key}" has something that is neither -s, -d, -i, -o nor a match (-m …): ${words.join(' ')}`];
  }
  const family: Family = key === 'conditionsV4' ? 'ipv4' : 'ipv6';
  return [parts.source, parts.destination]
    .flatMap((address) => address?.value.split(',') ?? [])
    .filter((text) => canonical(family, text) === undefined)
    .map((text) => `"${key}" has an address that is not of ${family === 'ipv4' ? 'IPv4' : 'IPv6'}: ${text}`);
}

/**
 * Conditions as parts of rules, spelled as iptables prints them, so that a rule read back is known again. As on iptables' own
 * command line, a list of addresses makes a rule for each.
 */
export function readConditions(family: Family, words: readonly string[]): Conditions[] {
  const { source: from, destination: to, ...parts } = parseRuleArgs(words) ?? {};
  return alternatives(family, from).flatMap((source) =>
    alternatives(family, to).map((destination) => ({
      ...parts,
      ...(source === undefined ? {} : { source }),
      ...(destination === undefined ? {} : { destination }),
    })),
  );
}

/** Options that choose what the rule does or which ports it is for: those are the plugin's. */
const RESERVED = new Set(
  '-j --jump -g --goto -p --protocol -t --table -A -I -D -R -N -X -F -P -E -L -S -Z -C'.split(' '),
);

function alternatives(family: Family, value: Negatable | undefined): (Negatable | undefined)[] {
  if (value === undefined) return [undefined];
  const spelled = value.value
    .split(',')
    .map((text) => ({ ...value, value: canonical(family, text) ?? text }));
  // iptables drops an address that every packet has.
  return spelled.map((one) => (one.negated !== true && one.value.endsWith('/0') ? undefined : one));
}

function canonical(family: AddressFamily, text: string): string | undefined {
  const [, written = '', mask] = /^([^/]+)(?:\/([0-9.]*\.[0-9.]*))?$/.exec(text) ?? [];
  const prefix = mask === undefined ? familyBits(family) : maskToPrefix(mask);
  const address = parseAddress(written);
  const cidr = address === undefined || prefix === undefined ? parseCidr(text) : { address, prefix };
  return cidr === undefined || cidr.address.family !== family ? undefined : formatCidr(networkOf(cidr));
}
