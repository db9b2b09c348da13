/** One conversation with nf_tables: reads, and transactions that happen whole or not at all. */
import { isErrno } from '../../kernel/errno.ts';
import { Listing, dump, exchange } from '../../kernel/netlink/conversation.ts';
import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import { NetlinkSocket } from '../../kernel/netlink/socket.ts';
import { Flag, Message, request, SUBSYSTEM } from './messages.ts';
import type { NftFamily } from './model.ts';
import { attributeOf, be32, encodeTree, type AttributeNode } from './nlattr.ts';

/**
 * Belongs to the network namespace that it was opened in. Close it: when a process just ends, the kernel waits for a grace period of
 * about 15 ms in which anybody's deletions come to their end, and only `close` leaves that waiting to the kernel.
 */
export class NftConnection {
  #socket: NetlinkSocket;
  /** May be under way on the socket. */
  #listing: Listing | undefined;
  /** Sockets with listings that nobody read to their end. */
  readonly #left: NetlinkSocket[] = [];
  /** When the generation was asked for, nobody had committed anything yet. */
  #untouched = false;

  static open(): NftConnection {
    return new NftConnection(NetlinkSocket.open(NETLINK_NETFILTER));
  }

  /** Use {@link NftConnection.open}. */
  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /**
   * A number that grows with every transaction of the namespace, whoever made it. While it is the one that a namespace begins with,
   * there is no table, and what is read from here on is answered without asking; {@link commit} for that number fails if it is not
   * so any more. Listings from before it are not to be read on.
   */
  generation(): number {
    for (const socket of this.#left.splice(0)) socket.close();
    const [answer] = this.#answers([request('get generation', Message.getGeneration, 0, 'inet', [])]);
    const generation = (answer && attributeOf(answer, GENERATION_ID)?.readUInt32BE()) ?? 0;
    this.#untouched = generation === INITIAL_GENERATION;
    return generation;
  }

  /**
   * All requests or none. Nothing is sent for an empty list.
   * @param generation commit only if nobody else committed since {@link generation} gave this number
   * @throws KernelError of the first refused request, named; ERESTART when the generation is another one
   */
  commit(requests: readonly NetlinkRequest[], generation?: number): void {
    if (requests.length === 0) return;
    this.#untouched = false;
    const batch = [edge(BATCH_BEGIN, generation), ...lastAcknowledged(requests), edge(BATCH_END)];
    const refused = exchange(this.#idle(), batch).find(({ error }) => error !== undefined);
    if (refused?.error !== undefined) throw refused.error;
  }

  /** Bodies without nfgenmsg, of all answers. */
  dump(what: string, message: number, family: NftFamily, nodes: readonly AttributeNode[]): Buffer[] {
    if (this.#untouched) return [];
    return dump(this.#idle(), request(what, message, Flag.dump, family, nodes)).map(({ body }) =>
      body.subarray(GENERIC_HEADER),
    );
  }

  /** The same undivided, and read only as far as somebody looks. @returns undefined when there is nothing at all */
  list(
    what: string,
    message: number,
    family: NftFamily,
    nodes: readonly AttributeNode[],
  ): Listing | undefined {
    if (this.#untouched) return undefined;
    this.#listing = new Listing(this.#idle(), request(what, message, Flag.dump, family, nodes));
    return this.#listing;
  }

  /** One object by its name or key; undefined when it, or what it would be in, does not exist. */
  get(asked: NetlinkRequest): Buffer | undefined {
    return this.#untouched ? undefined : this.#answers([asked])[0];
  }

  /** The same for several, asked in one write. */
  getAll(asked: readonly NetlinkRequest[]): (Buffer | undefined)[] {
    return this.#untouched || asked.length === 0 ? asked.map(() => undefined) : this.#answers(asked);
  }

  close(): void {
    for (const socket of [this.#socket, ...this.#left.splice(0)]) socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * A socket with nothing under way. Whoever stopped reading a listing had found all that there was to find: nearly always what is left is the
   * kernel's word that it was all, or a little more; a long rest is left on that socket, and another one taken.
   */
  #idle(): NetlinkSocket {
    const listing = this.#listing;
    this.#listing = undefined;
    for (let more = 0; more < SHORT_REST; more++) listing?.readOn();
    if (listing === undefined || listing.complete) return this.#socket;
    const other = NetlinkSocket.open(NETLINK_NETFILTER);
    if (other.isInNamespaceOf(this.#socket)) {
      this.#left.push(this.#socket);
      this.#socket = other;
    } else {
      // The caller has gone to another namespace since.
      other.close();
      listing.readAll();
    }
    return this.#socket;
  }

  #answers(asked: readonly NetlinkRequest[]): (Buffer | undefined)[] {
    const questions = asked.map((question) => ({ ...question, answered: true as const }));
    return exchange(this.#idle(), questions).map(({ messages: [answer], error }) => {
      if (error !== undefined && !isErrno(error, 'ENOENT')) throw error;
      return error === undefined ? answer?.body.subarray(GENERIC_HEADER) : undefined;
    });
  }
}

const NETLINK_NETFILTER = 12;
/** Datagrams of a listing that are read faster than another socket is opened and closed: some 250 rules. */
const SHORT_REST = 4;
/**
 * Of a new network namespace (nf_tables_init_net). Each commit adds one, and 0 is left out: it comes again after 2^32 - 1 commits,
 * which at a thousand a second is after 49 days.
 */
const INITIAL_GENERATION = 1;
/** struct nfgenmsg */
const GENERIC_HEADER = 4;
/** NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_BATCH_GENID, NFTA_GEN_ID */
const BATCH_BEGIN = 16;
const BATCH_END = 17;
const BATCH_GENERATION = 1;
const GENERATION_ID = 1;

/**
 * The verdicts of a batch come when it is over, in the order of its requests, and those of refused ones come unasked: whoever has that
 * of the last has all.
 */
function lastAcknowledged(requests: readonly NetlinkRequest[]): NetlinkRequest[] {
  return [...requests.slice(0, -1).map((one) => ({ ...one, silent: true as const })), ...requests.slice(-1)];
}

/** Begin or end of a batch: res_id (be16) is the subsystem that it is for. */
function edge(type: number, generation?: number): NetlinkRequest {
  const nodes = generation === undefined ? [] : [[BATCH_GENERATION, be32(generation)] as const];
  const body = encodeTree(nodes, Buffer.of(0, 0, 0, SUBSYSTEM));
  return {
    what: type === BATCH_BEGIN ? 'nf_tables transaction' : 'nf_tables commit',
    type,
    flags: 0,
    body,
    silent: true,
  };
}
