import { mkdtempSync, readdirSync } from 'node:fs';
import { succeed, type Attachment } from '../../../support/plugin.ts';

export const attachment: Attachment = { id: 'cont1', netns: '/none' };

export interface Ips {
  cniVersion: string;
  ips: { version?: string; address: string; gateway: string }[];
  routes?: { dst: string; gw?: string }[];
  dns?: object;
}

export function newDataDir(): string {
  return mkdtempSync('/run/data-');
}

export function configFor(
  dataDir: string,
  ipam: object = { ranges: [[{ subnet: '10.1.2.0/24' }]] },
): { cniVersion: string; name: string; ipam: object } & Record<string, unknown> {
  return {
    cniVersion: '1.1.0',
    name: 'net',
    type: 'host-local',
    ipam: { type: 'host-local', dataDir, ...ipam },
  };
}

export function add(config: object, who: Attachment = attachment): Ips {
  return succeed('host-local', 'ADD', who, config) as Ips;
}

export function addresses({ ips }: Ips): string[] {
  return ips.map(({ address }) => address);
}

export function leases(dataDir: string): string[] {
  return readdirSync(`${dataDir}/net`)
    .filter((name) => /^[0-9a-f.:]+$/.test(name))
    .sort();
}
