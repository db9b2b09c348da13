/** A netlink connection to nf_tables: requests, and transactions. */
import { isErrno } from '../../kernel/errno.ts';
import { Listing, dump, exchange } from '../../kernel/netlink/conversation.ts';
import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import { NetlinkSocket } from '../../kernel/netlink/socket.ts';
import { Flag, Message, request, SUBSYSTEM } from './messages.ts';
import type { NftFamily } from './model.ts';
import { attributeOf, encodeTree, type AttributeNode } from './nlattr.ts';

/**
 * Belongs to the network namespace that it was opened in. Close it: at the end of a process, the kernel waits for the RCU grace period of
 * pending deletions (about 15 ms), which `close` leaves to a kernel thread.
 */
export class NftConnection {
  #socket: NetlinkSocket;
  /** May be incomplete on the socket. */
  #listing: Listing | undefined;
  /** Sockets with incomplete listings. */
  readonly #left: NetlinkSocket[] = [];
  /** The namespace had no commit when the generation was read. */
  #untouched = false;

  static open(): NftConnection {
    return new NftConnection(NetlinkSocket.open(NETLINK_NETFILTER));
  }

  /** Use {@link NftConnection.open}. */
  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /**
   * A number that grows with every transaction of the namespace. While it has its initial value there are no tables, and requests are answered
   * without the kernel; {@link commit} for that number fails if another program has committed since. Earlier listings become invalid.
   */
  generation(): number {
    for (const socket of this.#left.splice(0)) socket.close();
    const [answer] = this.#answers([request('get generation', Message.getGeneration, 0, 'inet', [])]);
    const generation = (answer && attributeOf(answer, GENERATION_ID)?.readUInt32BE()) ?? 0;
    this.#untouched = generation === INITIAL_GENERATION;
    return generation;
  }

  /**
   * All requests or none. Sends nothing for an empty list.
   * @param generation commit only if {@link generation} still returns this number
   * @throws KernelError of the first refused request; ERESTART if the generation has changed
   */
  commit(requests: readonly NetlinkRequest[], generation?: number): void {
    if (requests.length === 0) return;
    this.#untouched = false;
    const batch = [edge(BATCH_BEGIN, generation), ...lastAcknowledged(requests), edge(BATCH_END)];
    const refused = exchange(this.#idle(), batch).find(({ error }) => error !== undefined);
    if (refused?.error !== undefined) throw refused.error;
  }

  /** The attributes of all answers. */
  dump(what: string, message: number, family: NftFamily, nodes: readonly AttributeNode[]): Buffer[] {
    if (this.#untouched) return [];
    return dump(this.#idle(), request(what, message, Flag.dump, family, nodes)).map(({ body }) =>
      body.subarray(GENERIC_HEADER),
    );
  }

  /** As {@link dump}, read on demand and not split into messages. @returns undefined if there are no tables */
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

  /** One object by its name or key; undefined if it, its table or its set does not exist. */
  get(asked: NetlinkRequest): Buffer | undefined {
    return this.#untouched ? undefined : this.#answers([asked])[0];
  }

  /** The same for several, requested in one write. */
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
   * A socket without an incomplete listing. A search that ends early nearly always leaves only the end of the listing, which is read here. If more
   * is left, the listing keeps its socket, and another one is opened.
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
      // The caller has entered another namespace since.
      other.close();
      listing.readAll();
    }
    return this.#socket;
  }

  #answers(asked: readonly NetlinkRequest[]): (Buffer | undefined)[] {
    const requests = asked.map((one) => ({ ...one, answered: true as const }));
    return exchange(this.#idle(), requests).map(({ messages: [answer], error }) => {
      if (error !== undefined && !isErrno(error, 'ENOENT')) throw error;
      return error === undefined ? answer?.body.subarray(GENERIC_HEADER) : undefined;
    });
  }
}

const NETLINK_NETFILTER = 12;
/** Datagrams that are read in less time than opening another socket takes: about 250 rules. */
const SHORT_REST = 4;
/**
 * Of a new network namespace (nf_tables_init_net). Each commit adds one; the value repeats after 2^32 - 1 commits.
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
 * The results of a batch come at its end, in the order of its requests, and errors come without NLM_F_ACK: after the result of the last request
 * there are no more.
 */
function lastAcknowledged(requests: readonly NetlinkRequest[]): NetlinkRequest[] {
  return [...requests.slice(0, -1).map((one) => ({ ...one, silent: true as const })), ...requests.slice(-1)];
}

/** Begin or end of a batch; res_id (be16) is the subsystem. */
function edge(type: number, generation?: number): NetlinkRequest {
  const nodes = generation === undefined ? [] : [[BATCH_GENERATION, generation] as const];
  const body = encodeTree(nodes, Buffer.of(0, 0, 0, SUBSYSTEM));
  return {
    what: type === BATCH_BEGIN ? 'nf_tables transaction' : 'nf_tables commit',
    type,
    flags: 0,
    body,
    silent: true,
  };
}
