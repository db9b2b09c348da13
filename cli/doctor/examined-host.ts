import { readdirSync, statfsSync } from 'node:fs';
import { inventory, type InventoryEntry } from '../../shared/attachments/inventory.ts';
import { isErrno } from '../../shared/kernel/errno.ts';
import { readRegularFile } from '../../shared/kernel/files.ts';
import { addresses, type AddressInfo } from '../../shared/kernel/rtnetlink/addresses.ts';
import { links, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { routes, type RouteInfo } from '../../shared/kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { readSysctl } from '../../shared/kernel/sysctl.ts';
import { findTools } from '../../shared/packetfilter/iptables/tools.ts';
import { readNft } from '../../shared/packetfilter/nftables/change.ts';
import { decodeExpressions } from '../../shared/packetfilter/nftables/decode-expressions.ts';
import type { Family, TableState } from '../../shared/packetfilter/ruleset.ts';
import { chooseDriver } from '../../shared/packetfilter/select.ts';
import { legacyTablesInUse, type IptablesVariant } from '../../shared/packetfilter/tables-in-use.ts';
import { askConsul, type ConsulAgent } from './consul.ts';
import { tryFeatures, type FeatureTrial } from './features.ts';
import { networksOf, type Network } from './networks.ts';

export interface DoctorOptions {
  /** Nomad's cni_path. */
  readonly cniPath: readonly string[];
  /** Nomad's cni_config_dir. */
  readonly configDir: string;
  readonly nomadDataDirs: readonly string[];
  /** Of Consul's HTTP API: `127.0.0.1:8500`, with or without a scheme. */
  readonly consul: string;
  /** Replaces what Nomad finds. */
  readonly dns: { readonly address: string; readonly port: number } | undefined;
}

/** A table of iptables that exists on this host. */
export interface IptablesTable {
  readonly variant: IptablesVariant;
  /** Whether the host's `iptables` shows it. */
  readonly isOwn: boolean;
  readonly state: TableState;
}

export const PROGRAMS = { ipv4: 'iptables', ipv6: 'ip6tables' } as const;

/** What the checks ask of this host. Each answer is found once; nothing is changed. */
export interface Host {
  readonly options: DoctorOptions;
  readonly isRoot: boolean;
  /** @returns undefined where this kernel, or the interface, lacks it */
  sysctl(path: string): string | undefined;
  /** The text of a regular file; undefined when there is none. */
  text(path: string): string | undefined;
  /** The names in a folder; none when there is no such folder. */
  names(folder: string): readonly string[];
  /** Of the file system that the folder is on; undefined when there is no such folder. */
  space(folder: string): FileSystemSpace | undefined;
  features(): readonly FeatureTrial[];
  links(): readonly LinkInfo[];
  addresses(): readonly AddressInfo[];
  /** Of the main table. */
  routes(): readonly RouteInfo[];
  /** @throws without the right to read the runtime's cache */
  attachments(): readonly InventoryEntry[];
  networks(): readonly Network[];
  /** The variant that the name `iptables` leads to; undefined when it is not installed. */
  iptablesVariant(family: Family): IptablesVariant | undefined;
  iptablesTables(): readonly IptablesTable[];
  /** Rules in tables of iptables that look up a set or map of nftables, which iptables cannot write. */
  nativeRules(): readonly NativeRule[];
  /** The local agent. @throws Error that says why it is not known */
  consul(): Promise<ConsulAgent>;
}

export interface NativeRule {
  /** `ip filter` */
  readonly table: string;
  readonly chain: string;
  readonly handle: bigint;
}

export interface FileSystemSpace {
  readonly freeBytes: number;
  readonly totalBytes: number;
  readonly freeInodes: number;
  /** 0 on file systems that create inodes as they need them. */
  readonly totalInodes: number;
}

export class ThisHost implements Host {
  readonly options: DoctorOptions;
  readonly isRoot = process.geteuid?.() === 0;
  readonly #known = new Map<string, unknown>();

  constructor(options: DoctorOptions) {
    this.options = options;
  }

  sysctl(path: string): string | undefined {
    try {
      return readSysctl(path);
    } catch (thrown) {
      if (isErrno(thrown, 'ENOENT')) return undefined;
      throw thrown;
    }
  }

  text(path: string): string | undefined {
    return readRegularFile(path);
  }

  names(folder: string): readonly string[] {
    try {
      return readdirSync(folder).sort();
    } catch (thrown) {
      if (isErrno(thrown, 'ENOENT', 'ENOTDIR')) return [];
      throw thrown;
    }
  }

  space(folder: string): FileSystemSpace | undefined {
    try {
      const { bsize, bavail, blocks, ffree, files } = statfsSync(folder);
      return {
        freeBytes: bavail * bsize,
        totalBytes: blocks * bsize,
        freeInodes: ffree,
        totalInodes: files,
      };
    } catch (thrown) {
      if (isErrno(thrown, 'ENOENT', 'ENOTDIR')) return undefined;
      throw thrown;
    }
  }

  features(): readonly FeatureTrial[] {
    return this.#once('features', tryFeatures);
  }

  links(): readonly LinkInfo[] {
    return this.#once('links', () => asked((rtnetlink) => links(rtnetlink)));
  }

  addresses(): readonly AddressInfo[] {
    return this.#once('addresses', () => asked((rtnetlink) => addresses(rtnetlink)));
  }

  routes(): readonly RouteInfo[] {
    return this.#once('routes', () => asked((rtnetlink) => routes(rtnetlink)));
  }

  attachments(): readonly InventoryEntry[] {
    if (!this.isRoot) throw new Error('only root can read the cached results of the runtime');
    return this.#once('attachments', inventory);
  }

  networks(): readonly Network[] {
    return this.#once('networks', () => networksOf(this));
  }

  iptablesVariant(family: Family): IptablesVariant | undefined {
    return findTools(family)?.variant;
  }

  iptablesTables(): readonly IptablesTable[] {
    return this.#once('tables', () =>
      (['ipv4', 'ipv6'] as const).flatMap((family) =>
        (['nft', 'legacy'] as const).flatMap((variant) => this.#tables(family, variant)),
      ),
    );
  }

  nativeRules(): readonly NativeRule[] {
    const chains = ['INPUT', 'FORWARD', 'OUTPUT', 'PREROUTING', 'POSTROUTING'];
    const admins = new Set(this.networks().flatMap(({ adminChain }) => adminChain ?? []));
    return readNft((reader) =>
      (['ip', 'ip6'] as const).flatMap((family) =>
        ['filter', 'nat'].flatMap((name) =>
          [...chains, ...admins].flatMap((chain) =>
            reader
              .rules({ table: { family, name }, name: chain })
              .filter(({ expressions }) =>
                decodeExpressions(expressions).some(({ kind }) => kind === 'lookup'),
              )
              .map(({ handle }) => ({ table: `${family} ${name}`, chain, handle })),
          ),
        ),
      ),
    );
  }

  consul(): Promise<ConsulAgent> {
    return this.#once('consul', () => askConsul(this.options.consul));
  }

  /** Reading a table of iptables-legacy creates it: only those in use are read. */
  #tables(family: Family, variant: IptablesVariant): IptablesTable[] {
    const isOwn = this.iptablesVariant(family) === variant;
    return (['filter', 'nat'] as const)
      .filter((table) => variant === 'nft' || legacyTablesInUse(family)?.includes(table) === true)
      .map((table) => ({ variant, isOwn, state: chooseDriver({ variant }).read(family, table) }));
  }

  #once<T>(key: string, find: () => T): T {
    if (!this.#known.has(key)) this.#known.set(key, find());
    return this.#known.get(key) as T;
  }
}

function asked<T>(ask: (rtnetlink: Rtnetlink) => T): T {
  using rtnetlink = Rtnetlink.open();
  return ask(rtnetlink);
}
