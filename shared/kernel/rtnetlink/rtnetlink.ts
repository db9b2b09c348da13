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
 * One rtnetlink socket. It belongs for life to the network namespace that it was opened in: open one per namespace and
 * use both from anywhere, no need to stay inside. Usable with `using`.
 *
 * The verbs are functions of links.ts, addresses.ts, routes.ts, neighbours.ts and ports.ts, each taking a Rtnetlink first.
 * Their `...Request` twins only encode, for {@link Rtnetlink.batch}.
 */
export class Rtnetlink {
  readonly #socket: NetlinkSocket;

  /** In the namespace that the caller is in. */
  static open(options: NetlinkSocketOptions = {}): Rtnetlink {
    return new Rtnetlink(NetlinkSocket.open(Protocol.ROUTE, options));
  }

  /** In another namespace; the caller stays where it is. */
  static openIn(namespace: string | NetworkNamespace, options: NetlinkSocketOptions = {}): Rtnetlink {
    return inNamespace(namespace, () => Rtnetlink.open(options));
  }

  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /** Sends one request and waits for its answer. @throws KernelError as the kernel answered */
  request(request: NetlinkRequest): readonly NetlinkMessage[] {
    return this.batchOrThrow([request])[0] ?? [];
  }

  /**
   * As {@link request}, for what may be gone already.
   * @returns undefined when the kernel answered with one of these codes
   */
  requestUnless(codes: readonly string[], request: NetlinkRequest): readonly NetlinkMessage[] | undefined {
    return unless(codes, () => this.request(request));
  }

  /**
   * Sends several requests in one write and waits for all answers. NOT a transaction: the kernel carries out each one
   * that it can, also after one failed.
   * @returns one outcome per request, in order; nothing is thrown for a refused request
   */
  batch(requests: readonly NetlinkRequest[]): readonly NetlinkOutcome[] {
    return exchange(this.#socket, requests);
  }

  /** As {@link batch}, but throws the first refusal; its `syscall` names the request. All requests were tried all the same. */
  batchOrThrow(requests: readonly NetlinkRequest[]): readonly (readonly NetlinkMessage[])[] {
    return this.batch(requests).map(({ messages, error }) => {
      if (error !== undefined) throw error;
      return messages;
    });
  }

  /**
   * All messages that a listing request brings; repeated when the list changed meanwhile.
   * @param gone codes for "what you filter by does not exist", which is an empty list
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
