/**
 * nf_tables' expressions: the small instructions that a rule is made of (linux/netfilter/nf_tables.h). Each function gives
 * one NFTA_LIST_ELEM. Registers 1 to 4 hold 16 bytes each; 8 to 23 are the same space in words of 4 bytes.
 */
import { be32, be64, type AttributeNode } from './nlattr.ts';

/** NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA { … } } */
export type Expression = AttributeNode;

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
  nfproto: 15,
  l4proto: 16,
} as const;
export const CompareOp = { eq: 0, neq: 1, lt: 2, lte: 3, gt: 4, gte: 5 } as const;
export const PayloadBase = { link: 0, network: 1, transport: 2 } as const;

/**
 * ```
 * NFTA_META_KEY (2)  u32   what to load
 * NFTA_META_DREG (1) u32   where to
 * ```
 */
export function metaLoad(key: number, register: number = REGISTER_1): Expression {
  return expression('meta', [
    [2, be32(key)],
    [1, be32(register)],
  ]);
}

/** As {@link metaLoad}, but NFTA_META_SREG (3): the value of the register is stored. */
export function metaStore(key: number, register: number = REGISTER_1): Expression {
  return expression('meta', [
    [2, be32(key)],
    [3, be32(register)],
  ]);
}

/**
 * ```
 * NFTA_PAYLOAD_DREG (1) u32 | NFTA_PAYLOAD_BASE (2) u32 | NFTA_PAYLOAD_OFFSET (3) u32 | NFTA_PAYLOAD_LEN (4) u32, bytes
 * ```
 */
export function payloadLoad(
  base: number,
  offset: number,
  length: number,
  register: number = REGISTER_1,
): Expression {
  return expression('payload', [
    [1, be32(register)],
    [2, be32(base)],
    [3, be32(offset)],
    [4, be32(length)],
  ]);
}

/** NFTA_CMP_SREG (1), NFTA_CMP_OP (2), NFTA_CMP_DATA (3) { NFTA_DATA_VALUE (1) } */
export function compare(
  value: Uint8Array,
  op: number = CompareOp.eq,
  register: number = REGISTER_1,
): Expression {
  return expression('cmp', [
    [1, be32(register)],
    [2, be32(op)],
    [3, [[1, value]]],
  ]);
}

/** NFTA_RANGE_SREG (1), _OP (2), _FROM_DATA (3), _TO_DATA (4); both ends included. */
export function range(from: Uint8Array, to: Uint8Array, op: number = CompareOp.eq): Expression {
  return expression('range', [
    [1, be32(REGISTER_1)],
    [2, be32(op)],
    [3, [[1, from]]],
    [4, [[1, to]]],
  ]);
}

/** `register = (register & mask) ^ xor`: NFTA_BITWISE_SREG (1), _DREG (2), _LEN (3), _MASK (4), _XOR (5). */
export function bitwise(mask: Uint8Array, xor: Uint8Array = new Uint8Array(mask.length)): Expression {
  return expression('bitwise', [
    [1, be32(REGISTER_1)],
    [2, be32(REGISTER_1)],
    [3, be32(mask.length)],
    [4, [[1, mask]]],
    [5, [[1, xor]]],
  ]);
}

/** Host order to network order, for values that are compared as numbers: NFTA_BYTEORDER_OP (3) 1 = hton. */
export function hostToNetwork(length: number): Expression {
  return expression('byteorder', [
    [1, be32(REGISTER_1)],
    [2, be32(REGISTER_1)],
    [3, be32(1)],
    [4, be32(length)],
    [5, be32(length)],
  ]);
}

/** NFTA_IMMEDIATE_DREG (1), NFTA_IMMEDIATE_DATA (2) { NFTA_DATA_VALUE (1) } */
export function immediate(value: Uint8Array, register: number): Expression {
  return expression('immediate', [
    [1, be32(register)],
    [2, [[1, value]]],
  ]);
}

/** Verdicts of linux/netfilter.h and nf_tables.h; a jump or goto names its chain. */
export const VerdictCode = { drop: 0, accept: 1, jump: -3, goto: -4, return: -5 } as const;

/** An immediate to register 0 (NFT_REG_VERDICT) whose data is {@link verdictData}. */
export function verdict(code: number, chain?: string): Expression {
  return expression('immediate', [
    [1, be32(0)],
    [2, [verdictData(code, chain)]],
  ]);
}

/** NFTA_DATA_VERDICT (2) { NFTA_VERDICT_CODE (1), NFTA_VERDICT_CHAIN (2) } */
export function verdictData(code: number, chain?: string): AttributeNode {
  return [
    2,
    chain === undefined
      ? [[1, be32(code)]]
      : [
          [1, be32(code)],
          [2, chain],
        ],
  ];
}

/** NFTA_COUNTER_BYTES (1), NFTA_COUNTER_PACKETS (2); from zero. */
export function counter(): Expression {
  return expression('counter', [
    [1, be64(0n)],
    [2, be64(0n)],
  ]);
}

/** NFTA_CT_DREG (1), NFTA_CT_KEY (2): 0 state, 2 status. */
export function conntrackLoad(key: 'state' | 'status'): Expression {
  return expression('ct', [
    [1, be32(REGISTER_1)],
    [2, be32(key === 'state' ? 0 : 2)],
  ]);
}

/** `fib daddr type`: NFTA_FIB_DREG (1), NFTA_FIB_RESULT (2) 3 = address type, NFTA_FIB_FLAGS (3) 2 = daddr. */
export function fibDestinationType(): Expression {
  return expression('fib', [
    [1, be32(REGISTER_1)],
    [2, be32(3)],
    [3, be32(2)],
  ]);
}

/** NFTA_LOOKUP_SET (1), _SREG (2), _DREG (3) for maps (0 = the verdict), _FLAGS (5) 1 = invert. */
export function lookup(set: string, options: { destination?: number; not?: boolean } = {}): Expression {
  return expression('lookup', [
    [1, set],
    [2, be32(REGISTER_1)],
    ...(options.destination === undefined ? [] : [[3, be32(options.destination)] as const]),
    ...(options.not === true ? [[5, be32(1)] as const] : []),
  ]);
}

/**
 * Destination NAT from registers: NFTA_NAT_TYPE (1) 1 = DNAT, _FAMILY (2), _REG_ADDR_MIN (3), _REG_ADDR_MAX (4),
 * _REG_PROTO_MIN (5), _REG_PROTO_MAX (6), _FLAGS (7): 1 address, 2 port given.
 */
export function destinationNat(
  family: number,
  registers: { address: number; port?: readonly [number, number] },
): Expression {
  const { address, port } = registers;
  return expression('nat', [
    [1, be32(1)],
    [2, be32(family)],
    [3, be32(address)],
    [4, be32(address)],
    ...(port === undefined
      ? []
      : ([
          [5, be32(port[0])],
          [6, be32(port[1])],
        ] as const)),
    [7, be32(port === undefined ? 1 : 3)],
  ]);
}

/** NFTA_REDIR_REG_PROTO_MIN (1), _MAX (2), _FLAGS (3) 2 = port given. */
export function redirect(portRegister: number): Expression {
  return expression('redir', [
    [1, be32(portRegister)],
    [2, be32(portRegister)],
    [3, be32(2)],
  ]);
}

export function masquerade(): Expression {
  return expression('masq', []);
}

/** NFTA_REJECT_TYPE (1): 1 TCP reset, 2 icmpx; NFTA_REJECT_ICMP_CODE (2): 1 = icmpx port unreachable. */
export function reject(how: 'tcp reset' | 'icmpx port-unreachable'): Expression {
  return expression(
    'reject',
    how === 'tcp reset'
      ? [[1, be32(1)]]
      : [
          [1, be32(2)],
          [2, Uint8Array.of(1)],
        ],
  );
}

/** An xtables match in nf_tables: NFTA_MATCH_NAME (1), _REV (2), _INFO (3), its struct padded to 8 bytes. */
export function xtMatch(name: string, revision: number, info: Uint8Array): Expression {
  return expression('match', xtables(name, revision, info));
}

/** An xtables target: NFTA_TARGET_NAME (1), _REV (2), _INFO (3). */
export function xtTarget(name: string, revision: number, info: Uint8Array): Expression {
  return expression('target', xtables(name, revision, info));
}

const LIST_ELEM = 1;

function expression(name: string, data: readonly AttributeNode[]): Expression {
  return [
    LIST_ELEM,
    [
      [1, name],
      [2, data],
    ],
  ];
}

function xtables(name: string, revision: number, info: Uint8Array): readonly AttributeNode[] {
  const padded = new Uint8Array((info.length + 7) & ~7);
  padded.set(info);
  return [
    [1, name],
    [2, be32(revision)],
    [3, padded],
  ];
}
