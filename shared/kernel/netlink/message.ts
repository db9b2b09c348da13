import { Flags, FlagsAck } from 'netlink/dist/constants.js';
import { HEADER_LENGTH, writeU16, writeU32 } from 'netlink/dist/structs.js';
import { KernelError } from '../errno.ts';
import { align, Attributes } from './attributes.ts';

/**
 * Netlink messages (linux/netlink.h):
 *
 *    0        4       6       8           12          16
 *    +--------+-------+-------+-----------+-----------+- - - - - - - - - - - - - - -
 *    | length | type  | flags | sequence  | port      | family header, attributes
 *    +--------+-------+-------+-----------+-----------+- - - - - - - - - - - - - - -
 *    length: all of it, without the padding to a multiple of 4 before the next message; port: 0 in requests, the kernel knows the sender's
 */

/** One request without header; the socket adds sequence and ACK flag. */
export interface NetlinkRequest {
  /** What it does, for errors: `RTM_NEWLINK veth1234`. */
  readonly what: string;
  readonly type: number;
  /** NLM_F_* besides REQUEST and ACK. */
  readonly flags: number;
  /** Family header and attributes. */
  readonly body: Uint8Array;
  /** Part of an nfnetlink batch that the kernel answers only when it fails: begin, end, and all requests but the last. */
  readonly silent?: true;
  /** The kernel answers with one message or an error, so no acknowledgement is requested. */
  readonly answered?: true;
}

/** One message of the kernel, without header. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly body: Buffer;
}

export interface ReceivedMessage extends NetlinkMessage {
  readonly sequence: number;
}

/** Requests concatenated for one write; sequence numbers count up from `firstSequence`. */
export function encodeRequests(requests: readonly NetlinkRequest[], firstSequence: number): Buffer {
  const total = requests.reduce((sum, { body }) => sum + HEADER_LENGTH + align(body.length), 0);
  const out = Buffer.alloc(total);
  let at = 0;
  requests.forEach(({ type, flags, body, silent, answered }, index) => {
    const acknowledged = silent !== true && answered !== true;
    writeU32.call(out, HEADER_LENGTH + body.length, at);
    writeU16.call(out, type, at + 4);
    writeU16.call(out, flags | Flags.REQUEST | (acknowledged ? Flags.ACK : 0), at + 6);
    writeU32.call(out, (firstSequence + index) >>> 0, at + 8);
    out.set(body, at + HEADER_LENGTH);
    at += HEADER_LENGTH + align(body.length);
  });
  return out;
}

/** The messages of one datagram; bodies are views into it. @throws KernelError EBADMSG when a length does not fit */
export function decodeMessages(datagram: Buffer): ReceivedMessage[] {
  const messages: ReceivedMessage[] = [];
  for (let at = 0; at + HEADER_LENGTH <= datagram.length;) {
    const length = datagram.readUInt32LE(at);
    if (length < HEADER_LENGTH || at + length > datagram.length) {
      const detail = `message at ${at} claims ${length} bytes of ${datagram.length - at}`;
      throw new KernelError('netlink answer', 74, { detail });
    }
    messages.push(messageAt(datagram, at));
    at += align(length);
  }
  return messages;
}

/** The message whose header is there, and whose length fits. */
export function messageAt(datagram: Buffer, at: number): ReceivedMessage {
  return {
    type: datagram.readUInt16LE(at + 4),
    flags: datagram.readUInt16LE(at + 6),
    sequence: datagram.readUInt32LE(at + 8),
    body: datagram.subarray(at + HEADER_LENGTH, at + datagram.readUInt32LE(at)),
  };
}

/**
 * The result in NLMSG_ERROR (errno 0: an acknowledgement):
 *
 *    0            4                        20
 *    +------------+------------------------+- - - - - - - - - - -+- - - - - - - - - - - - - - - -
 *    | -errno     | header of the request  | its body,           | extended ack attributes,
 *    |            |                        | unless CAPPED       | with ACK_TLVS
 *    +------------+------------------------+- - - - - - - - - - -+- - - - - - - - - - - - - - - -
 *
 * @returns undefined for an acknowledgement
 */
export function decodeError(what: string, message: NetlinkMessage): KernelError | undefined {
  const { body, flags } = message;
  const errno = errnoOf(what, body);
  if (errno === 0) return undefined;
  if ((flags & FlagsAck.ACK_TLVS) === 0 || body.length < 4 + HEADER_LENGTH)
    return new KernelError(what, errno, NEEDED);
  const echoed = (flags & FlagsAck.CAPPED) === 0 ? body.readUInt32LE(4) : HEADER_LENGTH;
  return new KernelError(what, errno, { ...NEEDED, ...extendedAck(body, 4 + align(echoed)) });
}

/**
 * The result in NLMSG_DONE, the end of a dump: -errno, then extended ack attributes with ACK_TLVS.
 * @returns undefined when the dump is complete
 */
export function decodeDone(what: string, message: NetlinkMessage): KernelError | undefined {
  const { body, flags } = message;
  // Old protocols end a dump without a result.
  if (body.length < 4) return undefined;
  const errno = errnoOf(what, body);
  if (errno === 0) return undefined;
  return new KernelError(what, errno, {
    ...NEEDED,
    ...((flags & FlagsAck.ACK_TLVS) === 0 ? {} : extendedAck(body, 4)),
  });
}

/** Of rtnetlink and nfnetlink requests, in the user namespace that owns the network namespace. */
const NEEDED = { capability: 'CAP_NET_ADMIN' };
/** enum nlmsgerr_attrs */
const ERR_MSG = 1;
const ERR_OFFSET = 2;
const ERR_MISSING_TYPE = 5;

function errnoOf(what: string, body: Buffer): number {
  if (body.length >= 4) return Math.max(0, -body.readInt32LE());
  throw new KernelError(what, 74, { detail: `result of ${body.length} bytes` });
}

/** An invalid explanation must not hide the error itself, so it is ignored. */
function extendedAck(body: Buffer, start: number): { detail?: string; offset?: number } {
  try {
    const attributes = new Attributes(body, start);
    const missing = attributes.u32(ERR_MISSING_TYPE);
    const detail =
      attributes.text(ERR_MSG) ?? (missing === undefined ? undefined : `attribute ${missing} is missing`);
    const offset = attributes.u32(ERR_OFFSET);
    return { ...(detail === undefined ? {} : { detail }), ...(offset === undefined ? {} : { offset }) };
  } catch {
    return {};
  }
}
