import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import {
  encodeComment,
  encodeInterval,
  encodeKey,
  encodeStatements,
  keyLength,
  typeNumber,
} from './encode.ts';
import { type Expression, VerdictCode, verdictData } from './expressions.ts';
import type {
  NftChain,
  NftElement,
  NftFamily,
  NftHook,
  NftRule,
  NftSet,
  NftTable,
  NftType,
  NftVerdict,
} from './model.ts';
import { type AttributeNode, encodeTree } from './nlattr.ts';

/**
 * nf_tables' messages as netlink requests. Each begins with struct nfgenmsg (linux/netfilter/nfnetlink.h):
 * ```
 *  0             1             2               4
 * +-------------+-------------+---------------+---------------------
 * | nfgen_family| version = 0 | res_id (be16) | attributes, NFTA_*
 * +-------------+-------------+---------------+---------------------
 * ```
 * res_id is 0 except in the begin and end of a batch, where it names the subsystem.
 */

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

/** NFTA_TABLE_FLAGS (2) NFT_TABLE_F_OWNER: the kernel removes the table when the socket that sent this is closed. Kernel 5.12 and newer. */
export function addOwnedTable(table: NftTable): NetlinkRequest {
  return request(`add table ${tableText(table)}`, Message.newTable, Flag.create | Flag.excl, table.family, [
    [1, table.name],
    [2, 2],
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

/** Refused (EBUSY) while rules or elements jump to it. */
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

/** Expressions as data, or as the kernel listed them. */
export interface RuleBody<Expressions = readonly Expression[] | Uint8Array> {
  readonly expressions: Expressions;
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
                [1, compat.protocol],
                [2, compat.flags],
              ],
            ] as const,
          ]),
      ...(typeof where === 'object' ? [[6, where.before] as const] : []),
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
      [3, handle],
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
        [1, HOOKS[hook]],
        [2, priority],
      ],
    ],
    [5, policy === 'drop' ? 0 : 1],
    [7, type],
  ];
}

/** Messages for sets, maps and their elements. */

/**
 * NFTA_SET_TABLE (1), _NAME (2), _FLAGS (3), _KEY_TYPE (4), _KEY_LEN (5), _DATA_TYPE (6), _DATA_LEN (7), _ID (10).
 * An existing set is left as it is.
 * @param id unlike that of any other set of the batch
 */
export function addSet(set: NftSet, id: number): NetlinkRequest {
  const flags = (set.data === undefined ? 0 : SET_MAP) | (set.interval === true ? SET_INTERVAL : 0);
  return request(`add set ${setText(set)}`, Message.newSet, Flag.create, set.table.family, [
    [1, set.table.name],
    [2, set.name],
    [3, flags],
    [4, typeNumber(set.key)],
    [5, keyLength(set.key)],
    ...dataNodes(set.data),
    [10, id],
    [13, setUserdata(set)],
  ]);
}

export function deleteSet(set: NftSet): NetlinkRequest {
  return request(`delete set ${setText(set)}`, Message.deleteSet, 0, set.table.family, [
    [1, set.table.name],
    [2, set.name],
  ]);
}

/** An existing element with the same data stays; with other data: EBUSY. With `excl`, any existing one: EEXIST. */
export function addElements(
  set: NftSet,
  elements: readonly NftElement[],
  options: { excl?: boolean } = {},
): NetlinkRequest {
  const flags = options.excl === true ? Flag.create | Flag.excl : Flag.create;
  return elementRequest('add', Message.newElement, flags, set, elements.flatMap(elementNodes));
}

/** By key; ENOENT if one does not exist. */
export function deleteElements(set: NftSet, keys: readonly NftElement['key'][]): NetlinkRequest {
  const nodes = keys.flatMap((key) => elementNodes({ set, key }));
  return elementRequest('delete', Message.deleteElement, 0, set, nodes);
}

/** Every element of a set. */
export function flushSet(set: NftSet): NetlinkRequest {
  return elementRequest('flush', Message.deleteElement, 0, set, undefined);
}

/** One element by key, not a dump; ENOENT if it does not exist. */
export function getElement(set: NftSet, key: NftElement['key']): NetlinkRequest {
  return elementRequest('get', Message.getElement, 0, set, elementNodes({ set, key }));
}

const SET_INTERVAL = 4;
const SET_MAP = 8;
const DATA_VERDICT = 0xffffff00;
const ELEMENT_INTERVAL_END = 1;

function setText(set: NftSet): string {
  return `${tableText(set.table)} ${set.name}`;
}

function dataNodes(data: NftSet['data']): AttributeNode[] {
  if (data === undefined) return [];
  if (data === 'verdict')
    return [
      [6, DATA_VERDICT],
      [7, 0],
    ];
  return [
    [6, typeNumber(data)],
    [7, keyLength(data)],
  ];
}

/**
 * What `nft list` needs to print keys and data in the right byte order: TLVs NFTNL_UDATA_SET_KEYBYTEORDER (0) and
 * _DATABYTEORDER (1), each a host-endian u32, 2 = big-endian; 1 = host, for interface names (strings).
 */
function setUserdata(set: NftSet): Uint8Array {
  const order = (types: readonly NftType[]): number => (types.length === 1 && types[0] === 'ifname' ? 1 : 2);
  const tlv = (type: number, value: number): Buffer => Buffer.of(type, 4, value, 0, 0, 0);
  const { data } = set;
  return Buffer.concat([
    tlv(0, order(set.key)),
    ...(data === undefined || data === 'verdict' ? [] : [tlv(1, order(data))]),
  ]);
}

/** NFTA_SET_ELEM_LIST_TABLE (1), _SET (2), _ELEMENTS (3) */
function elementRequest(
  verb: string,
  message: number,
  flags: number,
  set: NftSet,
  nodes: readonly AttributeNode[] | undefined,
): NetlinkRequest {
  return request(`${verb} element ${setText(set)}`, message, flags, set.table.family, [
    [1, set.table.name],
    [2, set.name],
    ...(nodes === undefined ? [] : [[3, nodes] as const]),
  ]);
}

/** NFTA_LIST_ELEM (1) { _KEY (1), _DATA (2), _FLAGS (3), _USERDATA (6) }; an interval is two of them, its end flagged. */
function elementNodes(element: NftElement): AttributeNode[] {
  const { set, key, data, comment } = element;
  const [type] = set.key;
  const extra: AttributeNode[] = [
    ...(data === undefined ? [] : [elementData(set, data)]),
    ...(comment === undefined ? [] : [[6, encodeComment(comment)] as const]),
  ];
  if (set.interval !== true || type === undefined)
    return [[1, [[1, [[1, encodeKey(set.key, key)]]], ...extra]]];
  const { first, after } = encodeInterval(type, key[0] ?? '');
  const start: AttributeNode = [1, [[1, [[1, first]]], ...extra]];
  return after === undefined
    ? [start]
    : [
        start,
        [
          1,
          [
            [1, [[1, after]]],
            [3, ELEMENT_INTERVAL_END],
          ],
        ],
      ];
}

/** NFTA_SET_ELEM_DATA (2) { NFTA_DATA_VERDICT } or { NFTA_DATA_VALUE } */
function elementData(set: NftSet, data: NonNullable<NftElement['data']>): AttributeNode {
  if (data.kind === 'value') {
    if (set.data === undefined || set.data === 'verdict') throw new Error(`${set.name} holds no values`);
    return [2, [[1, encodeKey(set.data, data.value)]]];
  }
  return [2, [verdictNode(data)]];
}

function verdictNode(data: NftVerdict): AttributeNode {
  return verdictData(VerdictCode[data.kind], 'chain' in data ? data.chain : undefined);
}

/** Appends a rule to its chain. */
export function ruleRequest({ chain, statements, comment }: NftRule): NetlinkRequest {
  return addRule(chain, { expressions: encodeStatements(chain.table.family, statements), comment }, 'last');
}
