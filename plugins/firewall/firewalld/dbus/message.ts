import { marshall, unmarshall } from 'dbus-native/lib/message.js';

/** A method call: whom it is for, and its arguments with their types in D-Bus' own letters. */
export interface MethodCall {
  /** Bus name: `org.freedesktop.DBus`. */
  readonly destination: string;
  readonly path: string;
  readonly interface: string;
  readonly member: string;
  /** One letter an argument: `ss`. */
  readonly signature?: string;
  readonly arguments?: readonly unknown[];
}

/** What came back for the call of this serial. */
export interface Reply {
  readonly serial: number;
  /** Undefined when the call succeeded. */
  readonly errorName: string | undefined;
  readonly values: readonly unknown[];
}

/** @param serial unlike that of any other call of the connection, and not 0 */
export function encodeCall(call: MethodCall, serial: number): Buffer {
  const { signature, arguments: values, ...whom } = call;
  return marshall({
    ...whom,
    type: METHOD_CALL,
    flags: NO_AUTO_START,
    serial,
    ...(signature === undefined ? {} : { signature, body: values ?? [] }),
  });
}

/**
 * Length of the whole message, told by its first 16 bytes:
 * ```
 *  0         1        2        3          4              8           12               16
 * +---------+--------+--------+----------+--------------+-----------+----------------+- - - - - - - - - -+- - -
 * | l or B  | type   | flags  | version  | body length  | serial    | fields' length | fields, padded to | body
 * |         |        |        | = 1      | u32          | u32       | u32            | a multiple of 8   |
 * +---------+--------+--------+----------+--------------+-----------+----------------+- - - - - - - - - -+- - -
 * ```
 * (D-Bus specification, "Message Format"; numbers in the order that the first byte names)
 * @returns undefined while there are fewer than 16
 * @throws RangeError on bytes that begin no message, or one larger than anything that is expected here
 */
export function messageLength(bytes: Buffer): number | undefined {
  if (bytes.length < HEADER) return undefined;
  const order = String.fromCharCode(bytes[0] ?? 0);
  if ((order !== 'l' && order !== 'B') || bytes[3] !== PROTOCOL_VERSION)
    throw new RangeError('what the bus sent is no D-Bus message');
  const [body, fields] = [4, 12].map((at) =>
    order === 'l' ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at),
  );
  const length = HEADER + 8 * Math.ceil((fields ?? 0) / 8) + (body ?? 0);
  if (length > LARGEST) throw new RangeError(`the bus announced a message of ${length} bytes`);
  return length;
}

/** @returns undefined for what is no answer: signals, calls of others */
export function decodeReply(bytes: Buffer): Reply | undefined {
  const { type, replySerial, errorName, body } = unmarshall(bytes);
  if ((type !== METHOD_RETURN && type !== ERROR) || replySerial === undefined) return undefined;
  return {
    serial: replySerial,
    errorName: type === ERROR ? (errorName ?? '') : undefined,
    values: body ?? [],
  };
}

const METHOD_CALL = 1;
const METHOD_RETURN = 2;
const ERROR = 3;
/** A plugin asks programs that run; it starts none. */
const NO_AUTO_START = 2;
const PROTOCOL_VERSION = 1;
const HEADER = 16;
const LARGEST = 16 * 1024 * 1024;
