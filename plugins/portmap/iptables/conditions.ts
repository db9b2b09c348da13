import {
  familyBits,
  formatCidr,
  maskToPrefix,
  networkOf,
  parseAddress,
  parseCidr,
  type AddressFamily,
} from '../../../shared/net/address.ts';
import { parseRuleArgs, type RuleParts } from '../../../shared/packetfilter/iptables/parse.ts';
import type { Family, Negatable } from '../../../shared/packetfilter/ruleset.ts';

/** The parts of a rule that conditionsV4 or conditionsV6 add. */
export type Conditions = Omit<RuleParts, 'target' | 'protocol'>;

/** Whether conditions are arguments of iptables; otherwise they are an nft expression. */
export function isIptablesSyntax(args: readonly string[]): boolean {
  return /^[-!]/.test(args[0] ?? '');
}

/** Problems of conditions in iptables syntax, as sentences; empty when they are valid. */
export function checkConditions(key: string, args: readonly string[]): string[] {
  if (args.some((arg) => /[\0-\x1f]/.test(arg))) return [`"${key}" has control characters`];
  const reserved = args.find((arg) => RESERVED.has(arg));
  if (reserved !== undefined) {
    return [`"${key}" must not have ${reserved}; only -s, -d, -i, -o and matches (-m ...) are allowed`];
  }
  const parts = parseRuleArgs(args);
  if (parts === undefined) {
    return [`"${key}" must consist of -s, -d, -i, -o and matches (-m ...), got: ${args.join(' ')}`];
  }
  const family: Family = key === 'conditionsV4' ? 'ipv4' : 'ipv6';
  return [parts.source, parts.destination]
    .flatMap((address) => address?.value.split(',') ?? [])
    .filter((text) => canonical(family, text) === undefined)
    .map((text) => `"${key}" must have ${family === 'ipv4' ? 'IPv4' : 'IPv6'} addresses, got ${text}`);
}

/**
 * Conditions as parts of rules, in the spelling of iptables-save, so that a rule that is read back compares equal. As on the command line
 * of iptables, a list of addresses makes one rule for each.
 */
export function readConditions(family: Family, args: readonly string[]): Conditions[] {
  const { source: from, destination: to, ...parts } = parseRuleArgs(args) ?? {};
  return alternatives(family, from).flatMap((source) =>
    alternatives(family, to).map((destination) => ({
      ...parts,
      ...(source === undefined ? {} : { source }),
      ...(destination === undefined ? {} : { destination }),
    })),
  );
}

/** Options that select the table, chain, action or ports of a rule: those are the plugin's. */
const RESERVED = new Set(
  '-j --jump -g --goto -p --protocol -t --table -A -I -D -R -N -X -F -P -E -L -S -Z -C'.split(' '),
);

function alternatives(family: Family, value: Negatable | undefined): (Negatable | undefined)[] {
  if (value === undefined) return [undefined];
  const spelled = value.value
    .split(',')
    .map((text) => ({ ...value, value: canonical(family, text) ?? text }));
  // iptables omits an address that matches every packet.
  return spelled.map((one) => (one.negated !== true && one.value.endsWith('/0') ? undefined : one));
}

function canonical(family: AddressFamily, text: string): string | undefined {
  const [, written = '', mask] = /^([^/]+)(?:\/([0-9.]*\.[0-9.]*))?$/.exec(text) ?? [];
  const prefix = mask === undefined ? familyBits(family) : maskToPrefix(mask);
  const address = parseAddress(written);
  const cidr = address === undefined || prefix === undefined ? parseCidr(text) : { address, prefix };
  return cidr === undefined || cidr.address.family !== family ? undefined : formatCidr(networkOf(cidr));
}
