import { isErrno } from '../../shared/kernel/errno.ts';
import { NftConnection } from '../../shared/packetfilter/nftables/connection.ts';
import { deleteTable } from '../../shared/packetfilter/nftables/messages.ts';
import type { NftFamily } from '../../shared/packetfilter/nftables/model.ts';
import { toolIfThere } from './tool.ts';

/** Tables that iptables-nft makes, with their built-in chains, whenever it is asked to do something with them. */
const BY_IPTABLES = /^(ip|ip6) (filter|nat|mangle|raw|security)$/;

/** `ip filter`, ...: the tables of iptables-nft that there are, out of the output of `nft list ruleset`. */
export function iptablesTables(ruleset: string): string[] {
  return tableNames(ruleset).filter((table) => BY_IPTABLES.test(table));
}

/** The text of `nft list ruleset` without empty accepting base chains: what is left of a table without rules is its braces. */
export function withoutEmptyChains(ruleset: string): string {
  const emptyChain = /^\tchain \S+ \{\n\t\ttype [^\n]*policy accept;\n\t\}\n\n?/gm;
  return ruleset
    .replace(/^# Warning:[^\n]*\n/gm, '')
    .replace(emptyChain, '')
    .replace(/\n\n\}/g, '\n}');
}

/** A table that holds nothing, as {@link withoutEmptyChains} leaves it. */
export const EMPTY_TABLE = /^table [^\n]* \{\n\}\n/gm;

/**
 * Takes away the tables that came with the example and are empty again. Whoever has committed anything to nf_tables between
 * the look and the deletion keeps everything: the kernel refuses it then, and it is looked at again.
 * @param before `takeFootprint().tables` of the time before
 */
export function removeEmptyTables(before: readonly string[]): void {
  for (let attempt = 0; attempt < 5; attempt += 1) {
    using nft = NftConnection.open();
    const generation = nft.generation();
    const ruleset = toolIfThere('nft', ['-s', 'list', 'ruleset']);
    const empty = tableNames((withoutEmptyChains(ruleset).match(EMPTY_TABLE) ?? []).join(''));
    const ours = empty.filter((table) => BY_IPTABLES.test(table) && !before.includes(table));
    try {
      nft.commit(
        ours.map((table) => deleteTable(tableOf(table))),
        generation,
      );
      return;
    } catch (thrown) {
      if (!isErrno(thrown, 'ERESTART')) throw thrown;
    }
  }
}

function tableNames(ruleset: string): string[] {
  return [...ruleset.matchAll(/^table (\S+ \S+) \{$/gm)].map(([, name = '']) => name);
}

function tableOf(text: string): { family: NftFamily; name: string } {
  const [family = '', name = ''] = text.split(' ');
  return { family: family as NftFamily, name };
}
