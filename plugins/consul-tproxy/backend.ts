import type { Family, UnmanagedRule, Rule, TableName } from '../../shared/packetfilter/ruleset.ts';
import type { TablePlan } from './plan.ts';

/**
 * One way of holding the rules in the kernel; every method works on the network namespace that this thread is in. A back end does not see the
 * rules of another one (see backends.ts). There is no `collect`, because the rules end with their namespace, and `read` takes the
 * part of `missing`: CHECK weighs what it finds. STATUS calls `add` in a scratch namespace.
 */
export interface Backend {
  /** `iptables-nft`, `iptables-legacy`, `nftables` */
  readonly name: string;
  /**
   * Makes the namespace hold exactly these tables of the plugin, whatever was there: nothing, an older set, or what a consul-cni that failed
   * half-way left. When it throws, a namespace that held no rules of the plugin holds none.
   * @returns whether the namespace held no rules of the plugin in this back end before
   */
  add(tables: readonly TablePlan[]): boolean;
  /** Removes every chain and table with a name of the plugin. */
  remove(): void;
  /** The tables that may hold rules of the plugin. */
  read(): readonly OwnTable[];
  /** Whether the namespace holds any rule of the plugin; cheaper than `read`. */
  present(): boolean;
  /** The rules in force with their counters, as the back end's own tool prints them. */
  listing(): string;
}

/** One table of one family as read: the plugin's chains and the built-in ones. */
export interface OwnTable {
  readonly family: Family;
  readonly table: TableName;
  readonly chains: ReadonlyMap<string, readonly (Rule | UnmanagedRule)[]>;
}
