import type { Family, UnmanagedRule, Rule, TableName } from '../../shared/packetfilter/ruleset.ts';
import type { TablePlan } from './plan.ts';

/**
 * One way of keeping the rules in the kernel. All of it is for use inside the allocation's namespace.
 * What one backend wrote another one does not see: whoever applies one removes what the others hold (see place.ts).
 */
export interface Backend {
  /** `iptables-nft`, `iptables-legacy`, `nftables` */
  readonly name: string;
  /**
   * Makes the namespace hold these tables and nothing else of ours, whatever was there before: nothing, an older set, or what a
   * consul-cni that failed half-way left. When it throws, a namespace that held nothing of ours holds nothing.
   * @returns whether the namespace held nothing of ours before, as far as this backend sees
   */
  apply(tables: readonly TablePlan[]): boolean;
  /** Removes everything that has one of our names. */
  remove(): void;
  /** The tables that may hold something of ours. */
  read(): readonly OwnTable[];
  /** Whether anything of ours stands in the namespace, as cheaply as can be told. */
  present(): boolean;
  /** The rules in force with their counters, in the words of the backend's own tool. */
  listing(): string;
}

/** What CHECK and `weft show` look at: one table of one family with our chains and the built-in ones. */
export interface OwnTable {
  readonly family: Family;
  readonly table: TableName;
  readonly chains: ReadonlyMap<string, readonly (Rule | UnmanagedRule)[]>;
}
