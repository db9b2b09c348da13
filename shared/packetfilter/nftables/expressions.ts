/**
 * nf_tables' expressions: the small instructions that a rule is made of (linux/netfilter/nf_tables.h). Each function gives
 * one NFTA_LIST_ELEM. Registers 1 to 4 hold 16 bytes each; 8 to 23 are the same space in words of 4 bytes.
 */
import type { AttributeNode } from './nlattr.ts';

/**
 * ```
 * NFTA_LIST_ELEM { NFTA_EXPR_NAME string | NFTA_EXPR_DATA { attributes of the expression } }
 * ```
 */
export type Expression = AttributeNode;

/** Attribute types, in the kernel's names: `META.key` is NFTA_META_KEY. decode-expressions.ts reads what is written here. */
export const LIST_ELEM = 1;
export const EXPR = { name: 1, data: 2 } as const;
export const DATA = { value: 1, verdict: 2 } as const;
export const VERDICT = { code: 1, chain: 2 } as const;
export const META = { dreg: 1, key: 2, sreg: 3 } as const;
export const PAYLOAD = { dreg: 1, base: 2, offset: 3, len: 4 } as const;
export const CMP = { sreg: 1, op: 2, data: 3 } as const;
export const RANGE = { sreg: 1, op: 2, fromData: 3, toData: 4 } as const;
export const BITWISE = { sreg: 1, dreg: 2, len: 3, mask: 4, xor: 5, op: 6 } as const;
export const BYTEORDER = { sreg: 1, dreg: 2, op: 3, len: 4, size: 5 } as const;
export const IMMEDIATE = { dreg: 1, data: 2 } as const;
export const COUNTER = { bytes: 1, packets: 2 } as const;
export const CT = { dreg: 1, key: 2 } as const;
export const FIB = { dreg: 1, result: 2, flags: 3 } as const;
export const LOOKUP = { set: 1, sreg: 2, dreg: 3, flags: 5 } as const;
export const NAT = {
  type: 1,
  family: 2,
  regAddrMin: 3,
  regAddrMax: 4,
  regProtoMin: 5,
  regProtoMax: 6,
  flags: 7,
} as const;
export const REDIR = { regProtoMin: 1, regProtoMax: 2, flags: 3 } as const;
export const REJECT = { type: 1, icmpCode: 2 } as const;
/** NFTA_MATCH_* and NFTA_TARGET_*. */
export const XTABLES = { name: 1, rev: 2, info: 3 } as const;

/** NFT_REG_VERDICT: an immediate to it ends the rule. */
export const REGISTER_VERDICT = 0;

export const REGISTER_1 = 1;
export const REGISTER_2 = 2;
export const REGISTER_3 = 3;
/** NFT_REG32_00: register 1 again, as the first of its four words. */
export const REGISTER_WORD_0 = 8;

export const MetaKey = {
  protocol: 1,
  mark: 3,
  iifname: 6,
  oifname: 7,
  skuid: 10,
  nftrace: 12,
  nfproto: 15,
  l4proto: 16,
} as const;
export const ConntrackKey = { state: 0, status: 2 } as const;
export const CompareOp = { eq: 0, neq: 1, lt: 2, lte: 3, gt: 4, gte: 5 } as const;
export const PayloadBase = { link: 0, network: 1, transport: 2 } as const;

/**
 * ```
 * NFTA_META_KEY u32, a MetaKey | NFTA_META_DREG u32
 * ```
 */
export function metaLoad(key: number, register: number = REGISTER_1): Expression {
  return expression('meta', [
    [META.key, key],
    [META.dreg, register],
  ]);
}

/**
 * Stores the register's value.
 * ```
 * NFTA_META_KEY u32 | NFTA_META_SREG u32
 * ```
 */
export function metaStore(key: number, register: number = REGISTER_1): Expression {
  return expression('meta', [
    [META.key, key],
    [META.sreg, register],
  ]);
}

/**
 * ```
 * NFTA_PAYLOAD_DREG u32 | NFTA_PAYLOAD_BASE u32, a PayloadBase | NFTA_PAYLOAD_OFFSET u32, bytes | NFTA_PAYLOAD_LEN u32, bytes
 * ```
 */
export function payloadLoad(
  base: number,
  offset: number,
  length: number,
  register: number = REGISTER_1,
): Expression {
  return expression('payload', [
    [PAYLOAD.dreg, register],
    [PAYLOAD.base, base],
    [PAYLOAD.offset, offset],
    [PAYLOAD.len, length],
  ]);
}

/**
 * ```
 * NFTA_CMP_SREG u32 | NFTA_CMP_OP u32, a CompareOp | NFTA_CMP_DATA { NFTA_DATA_VALUE bytes }
 * ```
 */
export function compare(
  value: Uint8Array,
  op: number = CompareOp.eq,
  register: number = REGISTER_1,
): Expression {
  return expression('cmp', [
    [CMP.sreg, register],
    [CMP.op, op],
    [CMP.data, [[DATA.value, value]]],
  ]);
}

/**
 * Both ends included.
 * ```
 * NFTA_RANGE_SREG u32 | _OP u32 | _FROM_DATA { NFTA_DATA_VALUE bytes } | _TO_DATA { NFTA_DATA_VALUE bytes }
 * ```
 */
export function range(from: Uint8Array, to: Uint8Array, op: number = CompareOp.eq): Expression {
  return expression('range', [
    [RANGE.sreg, REGISTER_1],
    [RANGE.op, op],
    [RANGE.fromData, [[DATA.value, from]]],
    [RANGE.toData, [[DATA.value, to]]],
  ]);
}

/**
 * `register = (register & mask) ^ xor`
 * ```
 * NFTA_BITWISE_SREG u32 | _DREG u32 | _LEN u32, bytes | _MASK { NFTA_DATA_VALUE bytes } | _XOR { NFTA_DATA_VALUE bytes }
 * ```
 */
export function bitwise(mask: Uint8Array, xor: Uint8Array = new Uint8Array(mask.length)): Expression {
  return expression('bitwise', [
    [BITWISE.sreg, REGISTER_1],
    [BITWISE.dreg, REGISTER_1],
    [BITWISE.len, mask.length],
    [BITWISE.mask, [[DATA.value, mask]]],
    [BITWISE.xor, [[DATA.value, xor]]],
  ]);
}

/**
 * Host order to network order, for values that are compared as numbers.
 * ```
 * NFTA_BYTEORDER_SREG u32 | _DREG u32 | _OP u32, NFT_BYTEORDER_HTON | _LEN u32, bytes | _SIZE u32, bytes
 * ```
 */
export function hostToNetwork(length: number): Expression {
  return expression('byteorder', [
    [BYTEORDER.sreg, REGISTER_1],
    [BYTEORDER.dreg, REGISTER_1],
    [BYTEORDER.op, BYTEORDER_HTON],
    [BYTEORDER.len, length],
    [BYTEORDER.size, length],
  ]);
}

/**
 * ```
 * NFTA_IMMEDIATE_DREG u32 | NFTA_IMMEDIATE_DATA { NFTA_DATA_VALUE bytes }
 * ```
 */
export function immediate(value: Uint8Array, register: number): Expression {
  return expression('immediate', [
    [IMMEDIATE.dreg, register],
    [IMMEDIATE.data, [[DATA.value, value]]],
  ]);
}

/** Verdicts of linux/netfilter.h and nf_tables.h; a jump or goto names its chain. */
export const VerdictCode = { drop: 0, accept: 1, jump: -3, goto: -4, return: -5 } as const;

/**
 * ```
 * NFTA_IMMEDIATE_DREG u32, NFT_REG_VERDICT | NFTA_IMMEDIATE_DATA { see verdictData }
 * ```
 */
export function verdict(code: number, chain?: string): Expression {
  return expression('immediate', [
    [IMMEDIATE.dreg, REGISTER_VERDICT],
    [IMMEDIATE.data, [verdictData(code, chain)]],
  ]);
}

/**
 * ```
 * NFTA_DATA_VERDICT { NFTA_VERDICT_CODE i32, a VerdictCode | NFTA_VERDICT_CHAIN string, of a jump or goto }
 * ```
 */
export function verdictData(code: number, chain?: string): AttributeNode {
  const codeNode = [VERDICT.code, code] as const;
  return [DATA.verdict, chain === undefined ? [codeNode] : [codeNode, [VERDICT.chain, chain]]];
}

/**
 * From zero.
 * ```
 * NFTA_COUNTER_BYTES u64 | NFTA_COUNTER_PACKETS u64
 * ```
 */
export function counter(): Expression {
  return expression('counter', [
    [COUNTER.bytes, 0n],
    [COUNTER.packets, 0n],
  ]);
}

/**
 * ```
 * NFTA_CT_DREG u32 | NFTA_CT_KEY u32, a ConntrackKey
 * ```
 */
export function conntrackLoad(key: 'state' | 'status'): Expression {
  return expression('ct', [
    [CT.dreg, REGISTER_1],
    [CT.key, ConntrackKey[key]],
  ]);
}

/**
 * `fib daddr type`
 * ```
 * NFTA_FIB_DREG u32 | NFTA_FIB_RESULT u32, NFT_FIB_RESULT_ADDRTYPE | NFTA_FIB_FLAGS u32, NFTA_FIB_F_DADDR
 * ```
 */
export function fibDestinationType(): Expression {
  return expression('fib', [
    [FIB.dreg, REGISTER_1],
    [FIB.result, FIB_RESULT_ADDRTYPE],
    [FIB.flags, FIB_F_DADDR],
  ]);
}

/**
 * ```
 * NFTA_LOOKUP_SET string | _SREG u32 | _DREG u32, for maps: where the data goes | _FLAGS u32, NFT_LOOKUP_F_INV
 * ```
 */
export function lookup(set: string, options: { destination?: number; not?: boolean } = {}): Expression {
  return expression('lookup', [
    [LOOKUP.set, set],
    [LOOKUP.sreg, REGISTER_1],
    ...(options.destination === undefined ? [] : [[LOOKUP.dreg, options.destination] as const]),
    ...(options.not === true ? [[LOOKUP.flags, LOOKUP_F_INV] as const] : []),
  ]);
}

/**
 * Destination NAT from registers.
 * ```
 * NFTA_NAT_TYPE u32, NFT_NAT_DNAT | _FAMILY u32 | _REG_ADDR_MIN u32 | _REG_ADDR_MAX u32 |
 * _REG_PROTO_MIN u32 | _REG_PROTO_MAX u32 | _FLAGS u32, NF_NAT_RANGE_*: 1 address, 2 port
 * ```
 */
export function destinationNat(
  family: number,
  registers: { address: number; port?: readonly [number, number] },
): Expression {
  const { address, port } = registers;
  return expression('nat', [
    [NAT.type, NAT_DNAT],
    [NAT.family, family],
    [NAT.regAddrMin, address],
    [NAT.regAddrMax, address],
    ...(port === undefined
      ? []
      : ([
          [NAT.regProtoMin, port[0]],
          [NAT.regProtoMax, port[1]],
        ] as const)),
    [NAT.flags, port === undefined ? RANGE_ADDRESS : RANGE_ADDRESS | RANGE_PORT],
  ]);
}

/**
 * ```
 * NFTA_REDIR_REG_PROTO_MIN u32 | NFTA_REDIR_REG_PROTO_MAX u32 | NFTA_REDIR_FLAGS u32, NF_NAT_RANGE_*
 * ```
 */
export function redirect(portRegister: number): Expression {
  return expression('redir', [
    [REDIR.regProtoMin, portRegister],
    [REDIR.regProtoMax, portRegister],
    [REDIR.flags, RANGE_PORT],
  ]);
}

export function masquerade(): Expression {
  return expression('masq', []);
}

/**
 * ```
 * NFTA_REJECT_TYPE u32, a RejectType | NFTA_REJECT_ICMP_CODE u8, NFT_REJECT_ICMPX_PORT_UNREACH
 * ```
 */
export function reject(how: 'tcp reset' | 'icmpx port-unreachable'): Expression {
  return expression(
    'reject',
    how === 'tcp reset'
      ? [[REJECT.type, RejectType.tcpReset]]
      : [
          [REJECT.type, RejectType.icmpx],
          [REJECT.icmpCode, Uint8Array.of(ICMPX_PORT_UNREACHABLE)],
        ],
  );
}

/**
 * An xtables match in nf_tables.
 * ```
 * NFTA_MATCH_NAME string | NFTA_MATCH_REV u32 | NFTA_MATCH_INFO the struct of the match, padded to 8 bytes
 * ```
 */
export function xtMatch(name: string, revision: number, info: Uint8Array): Expression {
  return expression('match', xtables(name, revision, info));
}

/** An xtables target: NFTA_TARGET_NAME, _REV, _INFO as in {@link xtMatch}. */
export function xtTarget(name: string, revision: number, info: Uint8Array): Expression {
  return expression('target', xtables(name, revision, info));
}

export const RejectType = { icmpUnreachable: 0, tcpReset: 1, icmpx: 2 } as const;

const BYTEORDER_HTON = 1;
const FIB_RESULT_ADDRTYPE = 3;
const FIB_F_DADDR = 2;
const LOOKUP_F_INV = 1;
const NAT_DNAT = 1;
const RANGE_ADDRESS = 1;
const RANGE_PORT = 2;
const ICMPX_PORT_UNREACHABLE = 1;

function expression(name: string, data: readonly AttributeNode[]): Expression {
  return [
    LIST_ELEM,
    [
      [EXPR.name, name],
      [EXPR.data, data],
    ],
  ];
}

function xtables(name: string, revision: number, info: Uint8Array): readonly AttributeNode[] {
  const padding = new Uint8Array(-info.length & 7);
  return [
    [XTABLES.name, name],
    [XTABLES.rev, revision],
    [XTABLES.info, padding.length === 0 ? info : Buffer.concat([info, padding])],
  ];
}
