import type { InventoryEntry } from '../attachments/inventory.ts';
import { compareAddresses, formatCidr } from '../net/address.ts';
import { configureIpam } from './config.ts';

/** One pool of a network's addresses. */
export interface Pool {
  readonly subnet: string;
  /** Addresses that can be leased, those in use included; null for more than a number can count. */
  readonly size: number | null;
  readonly used: number;
}

/** The pools of the attachments of one network, from the newest configuration that an ADD of it read. */
export function poolsOf(entries: readonly InventoryEntry[]): Pool[] {
  const raw = entries.flatMap(({ plugins }) => plugins.filter(({ ipam }) => ipam !== undefined)).at(-1);
  const configured = raw === undefined ? undefined : configureIpam(raw);
  if (configured === undefined || !('settings' in configured)) return [];
  const leased = entries.flatMap(({ leaseFiles }) => leaseFiles.map((file) => file.replace(/.*\//, '')));
  return configured.settings.rangeSets.flat().map(({ subnet, first, last, gateway }) => {
    const includesGateway = compareAddresses(gateway, first) >= 0 && compareAddresses(gateway, last) <= 0;
    const size = last.value - first.value + 1n - (includesGateway ? 1n : 0n);
    const isIn = (text: string): boolean => text.includes(':') === (subnet.address.family === 'ipv6');
    return {
      subnet: formatCidr(subnet),
      size: size > BigInt(Number.MAX_SAFE_INTEGER) ? null : Number(size),
      used: leased.filter(isIn).length,
    };
  });
}
