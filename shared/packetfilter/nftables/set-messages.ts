/** Messages for sets, maps and their elements. */
import type { NetlinkRequest } from '../../kernel/netlink/socket.ts';
import { encodeComment } from './encode.ts';
import { encodeInterval, encodeKey, keyLength, typeNumber } from './fields.ts';
import { VerdictCode, verdictData } from './expressions.ts';
import { Flag, Message, request, tableText } from './messages.ts';
import type { NftElement, NftSet, NftType, NftVerdict } from './model.ts';
import { be32, type AttributeNode } from './tree.ts';

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
    [3, be32(flags)],
    [4, be32(typeNumber(set.key))],
    [5, be32(keyLength(set.key))],
    ...dataNodes(set.data),
    [10, be32(id)],
    [13, setUserdata(set)],
  ]);
}

export function deleteSet(set: NftSet): NetlinkRequest {
  return request(`delete set ${setText(set)}`, Message.deleteSet, 0, set.table.family, [
    [1, set.table.name],
    [2, set.name],
  ]);
}

/** An element that is there already with the same data is left; other data: EEXIST. With `excl` any existing one is EEXIST. */
export function addElements(
  set: NftSet,
  elements: readonly NftElement[],
  options: { excl?: boolean } = {},
): NetlinkRequest {
  const flags = options.excl === true ? Flag.create | Flag.excl : Flag.create;
  return elementRequest('add', Message.newElement, flags, set, elements.flatMap(elementNodes));
}

/** By key; ENOENT when one is not there. */
export function deleteElements(set: NftSet, keys: readonly NftElement['key'][]): NetlinkRequest {
  const nodes = keys.flatMap((key) => elementNodes({ set, key }));
  return elementRequest('delete', Message.deleteElement, 0, set, nodes);
}

/** Every element of a set. */
export function flushSet(set: NftSet): NetlinkRequest {
  return elementRequest('flush', Message.deleteElement, 0, set, undefined);
}

/** One element by key, not a dump; ENOENT when it is not there. */
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
      [6, be32(DATA_VERDICT)],
      [7, be32(0)],
    ];
  return [
    [6, be32(typeNumber(data))],
    [7, be32(keyLength(data))],
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
            [3, be32(ELEMENT_INTERVAL_END)],
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
