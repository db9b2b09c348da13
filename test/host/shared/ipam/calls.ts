import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import type { CniResult } from '../../../../shared/cni/results.ts';
import type { CniVersion } from '../../../../shared/cni/versions.ts';
import { requireSettings, usableSettings, type Configured } from '../../../../shared/config/decode.ts';
import { configureIpam, type IpamConfig } from '../../../../shared/ipam/config.ts';
import type { IpamCall } from '../../../../shared/ipam/ipam.ts';

export interface CallOptions {
  id?: string;
  ifname?: string;
  version?: CniVersion;
  network?: string;
  /** `ipam` of the configuration; `dataDir` is filled in. */
  ipam?: Record<string, unknown>;
  runtimeConfig?: Record<string, unknown>;
  args?: Record<string, unknown>;
  cniArgs?: string;
  prevResult?: CniResult;
  valid?: { containerID: string; ifname: string }[];
}

/** An allocator's call as a plugin would make it; what is said on stderr ends in `warnings`. */
export function callOn(dataDir: string, options: CallOptions = {}): IpamCall & { warnings: string[] } {
  const config = requireSettings('host-local', configureOn(dataDir, options));
  return { ...removalOn(dataDir, options), config };
}

/** The same for DEL and GC, which an invalid configuration does not stop. */
export function removalOn(
  dataDir: string,
  options: CallOptions = {},
): IpamCall<Partial<IpamConfig>> & { warnings: string[] } {
  const warnings: string[] = [];
  return {
    containerId: options.id ?? 'cont1',
    ifname: options.ifname ?? 'eth0',
    environment: options.cniArgs === undefined ? {} : { CNI_ARGS: options.cniArgs },
    network: options.network ?? 'net',
    cniVersion: options.version ?? '1.1.0',
    config: usableSettings(configureOn(dataDir, options)),
    prevResult: options.prevResult,
    validAttachments: options.valid,
    warn: (line) => warnings.push(line),
    warnings,
  };
}

function configureOn(dataDir: string, options: CallOptions): Configured<IpamConfig> {
  return configureIpam({
    ipam: { type: 'host-local', ranges: [[{ subnet: '10.1.2.0/24' }]], dataDir, ...options.ipam },
    ...(options.runtimeConfig === undefined ? {} : { runtimeConfig: options.runtimeConfig }),
    ...(options.args === undefined ? {} : { args: options.args }),
  });
}

export function newDataDir(): string {
  return mkdtempSync('/run/ipam-');
}

/** Leases of a store: file name to text. */
export function leasesIn(store: string): Record<string, string> {
  const names = readdirSync(store).filter((name) => name !== 'lock' && !name.startsWith('last_reserved_ip.'));
  return Object.fromEntries(names.sort().map((name) => [name, readFileSync(`${store}/${name}`, 'utf8')]));
}
