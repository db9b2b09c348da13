import { Protocol } from 'netlink/dist/constants.js';
import { isErrno } from '../errno.ts';
import { inNamespace, type NetworkNamespace } from '../namespace.ts';
import { dump, exchange, type NetlinkOutcome } from '../netlink/conversation.ts';
import {
  NetlinkSocket,
  type NetlinkMessage,
  type NetlinkRequest,
  type NetlinkSocketOptions,
} from '../netlink/socket.ts';

/**
 * An rtnetlink socket. It always belongs to the network namespace that it was opened in: open one per namespace and use each from anywhere.
 * Usable with `using`.
 *
 * The operations are functions of links.ts, addresses.ts, routes.ts and bridge-ports.ts that take a Rtnetlink first. Their `...Request`
 * counterparts only encode, for {@link Rtnetlink.batch}.
 */
export class Rtnetlink {
  readonly #socket: NetlinkSocket;

  /** In the caller's namespace. */
  static open(options: NetlinkSocketOptions = {}): Rtnetlink {
    return new Rtnetlink(NetlinkSocket.open(Protocol.ROUTE, options));
  }

  /** In another namespace; the caller's thread returns to its own. */
  static openIn(namespace: string | NetworkNamespace, options: NetlinkSocketOptions = {}): Rtnetlink {
    return inNamespace(namespace, () => Rtnetlink.open(options));
  }

  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /** Sends one request and waits for its answer. @throws KernelError */
  request(request: NetlinkRequest): readonly NetlinkMessage[] {
    return this.batchOrThrow([request])[0] ?? [];
  }

  /**
   * As {@link request}, for objects that may not exist.
   * @returns undefined when the kernel answered with one of these codes
   */
  requestUnless(codes: readonly string[], request: NetlinkRequest): readonly NetlinkMessage[] | undefined {
    return unless(codes, () => this.request(request));
  }

  /**
   * Sends several requests in one write and waits for all answers. This is not a transaction: the kernel carries out
   * each request that it can, also after one failed.
   * @returns one outcome per request, in order; a refused request is not thrown
   */
  batch(requests: readonly NetlinkRequest[]): readonly NetlinkOutcome[] {
    return exchange(this.#socket, requests);
  }

  /** As {@link batch}, but throws the first refusal; its `syscall` names the request. The others have been carried out all the same. */
  batchOrThrow(requests: readonly NetlinkRequest[]): readonly (readonly NetlinkMessage[])[] {
    return this.batch(requests).map(({ messages, error }) => {
      if (error !== undefined) throw error;
      return messages;
    });
  }

  /**
   * All messages of a list; read again when the list changed meanwhile.
   * @param gone error codes that mean an empty list: the object to filter by does not exist
   */
  dump(request: NetlinkRequest, gone: readonly string[] = []): readonly NetlinkMessage[] {
    return unless(gone, () => dump(this.#socket, request)) ?? [];
  }

  close(): void {
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function unless<T>(codes: readonly string[], work: () => T): T | undefined {
  try {
    return work();
  } catch (thrown) {
    if (isErrno(thrown, ...codes)) return undefined;
    throw thrown;
  }
}
