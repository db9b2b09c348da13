import { deadlineIn, type Deadline } from '../../../../shared/kernel/deadline.ts';
import { UnixSocket } from '../../../../shared/kernel/unix-socket.ts';
import { authenticate } from './authenticate.ts';
import { decodeReply, encodeCall, messageLength, type MethodCall, type Reply } from './message.ts';

/** A method that was carried out and failed, or that nobody answers to. Decide by `code`. */
export class DBusError extends Error {
  override readonly name = 'DBusError';
  /** Name of the error: `org.freedesktop.DBus.Error.ServiceUnknown`. */
  readonly code: string;

  constructor(code: string, text: string) {
    super(text === '' ? code : `${code}: ${text}`);
    this.code = code;
  }
}

/**
 * One synchronous conversation with a message bus: sockets are our own, messages are encoded by the npm package
 * `dbus-native`, whose own connections need an event loop. Each call ends in time, whatever the other side does.
 */
export class DBusConnection {
  readonly #socket: UnixSocket;
  readonly #timeoutMs: number;
  #received: Buffer = Buffer.alloc(0);
  #serial = 0;

  /**
   * @param socket path of the bus' socket
   * @param timeoutMs until the bus lets us in, and for each call that names no other limit
   * @throws KernelError of the socket: ENOENT and ECONNREFUSED when there is no bus, ETIMEDOUT when it does not answer
   */
  static open(socket: string, timeoutMs: number): DBusConnection {
    const deadline = deadlineIn(timeoutMs);
    const connected = UnixSocket.connect(socket, deadline);
    try {
      authenticate(connected, deadline);
      const connection = new DBusConnection(connected, timeoutMs);
      connection.call({ ...BUS, member: 'Hello' });
      return connection;
    } catch (thrown) {
      connected.close();
      throw thrown;
    }
  }

  /** Use {@link DBusConnection.open}. */
  private constructor(socket: UnixSocket, timeoutMs: number) {
    this.#socket = socket;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * @returns what the method returned
   * @throws DBusError when it failed; KernelError ETIMEDOUT when it does not answer in time, ECONNRESET when the bus ends
   */
  call(call: MethodCall, timeoutMs: number = this.#timeoutMs): readonly unknown[] {
    const serial = ++this.#serial;
    const deadline = deadlineIn(timeoutMs);
    this.#socket.write(encodeCall(call, serial), deadline);
    for (;;) {
      const reply = this.#next(deadline);
      if (reply?.serial !== serial) continue;
      if (reply.errorName !== undefined) throw new DBusError(reply.errorName, textOf(reply));
      return reply.values;
    }
  }

  /** Whether any program has this name at the moment. */
  hasOwner(name: string): boolean {
    return this.call({ ...BUS, member: 'NameHasOwner', signature: 's', arguments: [name] })[0] === true;
  }

  close(): void {
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** The next message, if it is an answer. */
  #next(deadline: Deadline): Reply | undefined {
    for (;;) {
      const length = messageLength(this.#received);
      if (length !== undefined && this.#received.length >= length) {
        const message = this.#received.subarray(0, length);
        this.#received = this.#received.subarray(length);
        return decodeReply(message);
      }
      this.#received = Buffer.concat([this.#received, this.#socket.read(deadline)]);
    }
  }
}

const BUS = {
  destination: 'org.freedesktop.DBus',
  path: '/org/freedesktop/DBus',
  interface: 'org.freedesktop.DBus',
} as const;

function textOf({ values }: Reply): string {
  return typeof values[0] === 'string' ? values[0] : '';
}
