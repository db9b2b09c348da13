/**
 * nf_tables' messages as netlink requests. Each begins with struct nfgenmsg (linux/netfilter/nfnetlink.h):
 * ```
 *  0             1             2               4
 * +-------------+-------------+---------------+---------------------
 * | nfgen_family| version = 0 | res_id (be16) | attributes, NFTA_*
 * +-------------+-------------+---------------+---------------------
 * ```
 * res_id is 0 but in the batch's own begin and end, where it names the subsystem.
 */
import type { NetlinkRequest } from '../../kernel/netlink/socket.ts';
import { encodeComment } from './encode.ts';
import type { Expression } from './expressions.ts';
import type { NftChain, NftFamily, NftHook, NftTable } from './model.ts';
import { be32, be64, encodeTree, type AttributeNode } from './tree.ts';

/** NFT_MSG_* of linux/netfilter/nf_tables.h */
export const Message = {
  newTable: 0,
  getTable: 1,
  deleteTable: 2,
  newChain: 3,
  getChain: 4,
  deleteChain: 5,
  newRule: 6,
  getRule: 7,
  deleteRule: 8,
  newSet: 9,
  getSet: 10,
  deleteSet: 11,
  newElement: 12,
  getElement: 13,
  deleteElement: 14,
  getGeneration: 16,
} as const;

/** NLM_F_* of linux/netlink.h, as the new-requests use them. */
export const Flag = { excl: 0x200, create: 0x400, append: 0x800, dump: 0x300 } as const;

/** NFNL_SUBSYS_NFTABLES, the high byte of every message type. */
export const SUBSYSTEM = 10;

/** NFPROTO_* */
export const FAMILY_NUMBERS: Readonly<Record<NftFamily, number>> = { inet: 1, ip: 2, bridge: 7, ip6: 10 };

/** Any request of the subsystem. @param what how an error names it */
export function request(
  what: string,
  message: number,
  flags: number,
  family: NftFamily,
  nodes: readonly AttributeNode[],
): NetlinkRequest {
  const header = Buffer.of(FAMILY_NUMBERS[family], 0, 0, 0);
  return { what, type: (SUBSYSTEM << 8) | message, flags, body: encodeTree(nodes, header) };
}

/** NFTA_TABLE_NAME (1), NFTA_TABLE_USERDATA (6). An existing table is left as it is. */
export function addTable(table: NftTable): NetlinkRequest {
  const comment: AttributeNode[] = table.comment === undefined ? [] : [[6, encodeComment(table.comment)]];
  return request(`add table ${tableText(table)}`, Message.newTable, Flag.create, table.family, [
    [1, table.name],
    ...comment,
  ]);
}

/** The table and all that is in it. */
export function deleteTable(table: NftTable): NetlinkRequest {
  return request(`delete table ${tableText(table)}`, Message.deleteTable, 0, table.family, [[1, table.name]]);
}

/** NFTA_CHAIN_TABLE (1), _NAME (3), _HOOK (4) { _HOOKNUM (1), _PRIORITY (2) }, _POLICY (5), _TYPE (7), _USERDATA (12). An existing chain is left as it is. */
export function addChain(chain: NftChain): NetlinkRequest {
  const { table, name, comment } = chain;
  return request(`add chain ${chainText(chain)}`, Message.newChain, Flag.create, table.family, [
    [1, table.name],
    [3, name],
    ...(chain.hook === undefined ? [] : hookNodes(chain.hook)),
    ...(comment === undefined ? [] : [[12, encodeComment(comment)] as const]),
  ]);
}

/** It must be empty, and nothing may jump to it. */
export function deleteChain(chain: NftChain): NetlinkRequest {
  return request(`delete chain ${chainText(chain)}`, Message.deleteChain, 0, chain.table.family, [
    [1, chain.table.name],
    [3, chain.name],
  ]);
}

/** All rules of a chain: a delete-rule without handle. */
export function flushChain(chain: NftChain): NetlinkRequest {
  return request(`flush chain ${chainText(chain)}`, Message.deleteRule, 0, chain.table.family, [
    [1, chain.table.name],
    [2, chain.name],
  ]);
}

export interface RuleBody {
  readonly expressions: readonly Expression[];
  /** NFTA_RULE_USERDATA */
  readonly comment?: string | undefined;
  /** NFTA_RULE_COMPAT: needed where an xtables match or target checks the rule's protocol. */
  readonly compat?: { readonly protocol: number; readonly flags: number } | undefined;
}

/**
 * NFTA_RULE_TABLE (1), _CHAIN (2), _EXPRESSIONS (4), _COMPAT (5) { _PROTO (1), _FLAGS (2) }, _POSITION (6), _USERDATA (7).
 * @param where `last`; `first`; or before the rule of that handle
 */
export function addRule(
  chain: NftChain,
  body: RuleBody,
  where: 'first' | 'last' | { before: bigint },
): NetlinkRequest {
  const { compat, comment } = body;
  return request(
    `add rule ${chainText(chain)}`,
    Message.newRule,
    where === 'last' ? Flag.create | Flag.append : Flag.create,
    chain.table.family,
    [
      [1, chain.table.name],
      [2, chain.name],
      [4, body.expressions],
      ...(compat === undefined
        ? []
        : [
            [
              5,
              [
                [1, be32(compat.protocol)],
                [2, be32(compat.flags)],
              ],
            ] as const,
          ]),
      ...(typeof where === 'object' ? [[6, be64(where.before)] as const] : []),
      ...(comment === undefined ? [] : [[7, encodeComment(comment)] as const]),
    ],
  );
}

/** NFTA_RULE_HANDLE (3) */
export function deleteRule(chain: NftChain, handle: bigint): NetlinkRequest {
  return request(
    `delete rule ${chainText(chain)} handle ${handle}`,
    Message.deleteRule,
    0,
    chain.table.family,
    [
      [1, chain.table.name],
      [2, chain.name],
      [3, be64(handle)],
    ],
  );
}

export function tableText({ family, name }: NftTable): string {
  return `${family} ${name}`;
}

export function chainText(chain: NftChain): string {
  return `${tableText(chain.table)} ${chain.name}`;
}

/** NF_INET_* of linux/netfilter.h; NF_BR_* has the same first four and calls its own postrouting 4 as well. */
const HOOKS = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const;

function hookNodes({ type, hook, priority, policy }: NftHook): AttributeNode[] {
  return [
    [
      4,
      [
        [1, be32(HOOKS[hook])],
        [2, be32(priority)],
      ],
    ],
    [5, be32(policy === 'drop' ? 0 : 1)],
    [7, type],
  ];
}
