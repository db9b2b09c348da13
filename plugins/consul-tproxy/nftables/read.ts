import type { NftConnection } from '../../../shared/packetfilter/nftables/connection.ts';
import { Message, request } from '../../../shared/packetfilter/nftables/messages.ts';
import { ruleText } from '../../../shared/packetfilter/nftables/text.ts';
import { attributeOf, textAt } from '../../../shared/packetfilter/nftables/nlattr.ts';
import type { Family, UnmanagedRule, Rule, TableName } from '../../../shared/packetfilter/ruleset.ts';
import type { OwnTable } from '../backend.ts';
import { CHAINS_OF, HOOKS_OF } from '../chains.ts';
import { decodeNftRule, type DecodedRule } from './decode-rules.ts';
import { baseChainName, ownChainName, statementsOf, TABLE } from './plan.ts';

/** The plugin's table as read. */
export interface NftContents {
  /** In the kernel's order, with their rules; undefined for a rule that the plugin would not write. */
  readonly chains: ReadonlyMap<string, readonly (DecodedRule | undefined)[]>;
  /** Base chains at their hooks. A chain with the right rules but without its hook gets no packets. */
  readonly hooked: ReadonlySet<string>;
  /** `flags dormant`: the table has no effect. */
  readonly dormant: boolean;
}

export function readTable(connection: NftConnection): NftContents {
  const chains = new Map<string, (DecodedRule | undefined)[]>();
  const hooked = new Set<string>();
  const inTable = [[1, TABLE.name]] as const;
  for (const chain of connection.dump('list chains', Message.getChain, TABLE.family, inTable)) {
    // NFTA_CHAIN_TABLE (1), _NAME (3). Older kernels list the chains of every table.
    if (textAt(chain, 1) !== TABLE.name) continue;
    chains.set(textAt(chain, 3), []);
    if (isAtItsHook(chain)) hooked.add(textAt(chain, 3));
  }
  for (const rule of connection.dump('list rules', Message.getRule, TABLE.family, inTable)) {
    // NFTA_RULE_TABLE (1), _CHAIN (2), _EXPRESSIONS (4)
    if (textAt(rule, 1) !== TABLE.name) continue;
    chains.get(textAt(rule, 2))?.push(decodeNftRule(attributeOf(rule, 4) ?? Buffer.alloc(0)));
  }
  return { chains, hooked, dormant: isDormant(connection) };
}

/** NF_INET_* of linux/netfilter.h. */
const HOOK_NUMBERS: Readonly<Record<string, number>> = { PREROUTING: 0, INPUT: 1, OUTPUT: 3 };

/** NFTA_CHAIN_NAME (3), _HOOK (4) { _HOOKNUM (1) }, _TYPE (7): whether it is one of the plugin's base chains at the hook of its name. */
function isAtItsHook(chain: Buffer): boolean {
  const number = attributeOf(attributeOf(chain, 4) ?? Buffer.alloc(0), 1)?.readUInt32BE();
  return (['nat', 'filter'] as const).some((table) =>
    HOOKS_OF[table].some(
      (hook) =>
        textAt(chain, 3) === baseChainName(table, hook) &&
        textAt(chain, 7) === table &&
        number === HOOK_NUMBERS[hook],
    ),
  );
}

/** NFTA_TABLE_FLAGS (2), NFT_TABLE_F_DORMANT (1) */
function isDormant(connection: NftConnection): boolean {
  const body = connection.get(request('get table', Message.getTable, 0, TABLE.family, [[1, TABLE.name]]));
  const flags = body === undefined ? undefined : attributeOf(body, 2)?.readUInt32BE();
  return ((flags ?? 0) & 1) !== 0;
}

/** The table as the four tables of a plan, without chains that get no packets. */
export function tablesOf(contents: NftContents): OwnTable[] {
  const families = ['ipv4', 'ipv6'] as const;
  return families.flatMap((family) =>
    (['nat', 'filter'] as const).map((table) => ({
      family,
      table,
      chains: chainsOf(contents, family, table),
    })),
  );
}

function chainsOf(
  { chains: found, hooked, dormant }: NftContents,
  family: Family,
  table: TableName,
): Map<string, readonly (Rule | UnmanagedRule)[]> {
  const chains = new Map<string, readonly (Rule | UnmanagedRule)[]>();
  if (dormant) return chains;
  for (const chain of CHAINS_OF[table]) {
    const rules = found.get(ownChainName(chain, family));
    if (rules !== undefined)
      chains.set(
        chain,
        rules.map((rule) => asPlanned(rule, family)),
      );
  }
  for (const hook of HOOKS_OF[table]) {
    const name = baseChainName(table, hook);
    const rules = hooked.has(name) ? (found.get(name) ?? []) : [];
    const ofFamily = rules.filter((rule) => rule?.guard === undefined || rule.guard === family);
    chains.set(
      hook,
      ofFamily.map((rule) => asPlanned(rule, family)),
    );
  }
  return chains;
}

/** As in a plan: chain names without their family's suffix, rejects named as in iptables. */
function asPlanned(decoded: DecodedRule | undefined, family: Family): Rule | UnmanagedRule {
  if (decoded === undefined) return { unmanaged: 'an unknown rule' };
  const { rule } = decoded;
  if (rule.target.kind === 'jump') {
    return { ...rule, target: { kind: 'jump', chain: plannedName(rule.target.chain, family) } };
  }
  if (rule.target.kind === 'reject' && rule.target.with !== 'tcp-reset' && family === 'ipv6') {
    return { ...rule, target: { kind: 'reject', with: 'icmp6-port-unreachable' } };
  }
  return rule;
}

function plannedName(chain: string, family: Family): string {
  const own = [...CHAINS_OF.nat, ...CHAINS_OF.filter];
  return own.find((name) => ownChainName(name, family) === chain) ?? chain;
}

/** As `nft list table` prints it. */
export function nftListing({ chains: found, dormant }: NftContents): string {
  const chains = [...found].map(
    ([chain, rules]) => `\tchain ${chain} {\n${rules.map((rule) => `\t\t${listed(rule)}\n`).join('')}\t}\n`,
  );
  return `table ${TABLE.family} ${TABLE.name} {\n${dormant ? '\tflags dormant\n\n' : ''}${chains.join('\n')}}\n`;
}

function listed(decoded: DecodedRule | undefined): string {
  if (decoded === undefined) return '# an unknown rule';
  const { guard, rule, packets, bytes } = decoded;
  // nft prints no family test in front of an address.
  const text = ruleText({
    statements: statementsOf(rule, rule.destination === undefined ? guard : undefined),
  });
  return text.replace(/\bcounter\b/, `counter packets ${packets} bytes ${bytes}`);
}
