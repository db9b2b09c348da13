/** One conversation with nf_tables: reads, and transactions that happen whole or not at all. */
import { isErrno, type KernelError } from '../../kernel/errno.ts';
import { dump, exchange } from '../../kernel/netlink/conversation.ts';
import type { NetlinkMessage, NetlinkRequest } from '../../kernel/netlink/message.ts';
import { NetlinkSocket } from '../../kernel/netlink/socket.ts';
import { Flag, Message, request, SUBSYSTEM } from './messages.ts';
import type { NftFamily } from './model.ts';
import { attributeOf, be32, encodeTree, type AttributeNode } from './tree.ts';

/**
 * Belongs to the network namespace that it was opened in. Close it: after a transaction that deleted something the kernel lets a
 * grace period of about 15 ms pass before it lets go of the socket, also when the process just ends, and only `close` leaves
 * that waiting to the kernel.
 */
export class NftConnection {
  readonly #socket: NetlinkSocket;
  #deleted = false;

  static open(): NftConnection {
    return new NftConnection(NetlinkSocket.open(NETLINK_NETFILTER));
  }

  /** Use {@link NftConnection.open}. */
  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /** A number that grows with every transaction of the namespace, whoever made it. */
  generation(): number {
    const [answer] = this.#ask(request('get generation', Message.getGeneration, 0, 'inet', []));
    return (answer && attributeOf(answer.body.subarray(GENERIC_HEADER), GENERATION_ID)?.readUInt32BE()) ?? 0;
  }

  /**
   * All requests or none. Nothing is sent for an empty list.
   * @param generation commit only if nobody else committed since {@link generation} gave this number
   * @throws KernelError of the first refused request, named; ERESTART when the generation is another one
   */
  commit(requests: readonly NetlinkRequest[], generation?: number): void {
    if (requests.length === 0) return;
    this.#deleted ||= requests.some(({ type }) => DELETIONS.has(type & 0xff));
    const batch = [edge(BATCH_BEGIN, generation), ...requests, edge(BATCH_END)];
    const refused = exchange(this.#socket, batch).find(({ error }) => error !== undefined);
    if (refused?.error !== undefined) throw refused.error;
  }

  /** Bodies without nfgenmsg, of all answers. */
  dump(what: string, message: number, family: NftFamily, nodes: readonly AttributeNode[]): Buffer[] {
    return dump(this.#socket, request(what, message, Flag.dump, family, nodes)).map(({ body }) =>
      body.subarray(GENERIC_HEADER),
    );
  }

  /** One object by its name or key; undefined when it, or what it would be in, does not exist. */
  get(asked: NetlinkRequest): Buffer | undefined {
    try {
      const [answer] = this.#ask(asked);
      return answer?.body.subarray(GENERIC_HEADER);
    } catch (thrown) {
      if (isErrno(thrown, 'ENOENT')) return undefined;
      throw thrown;
    }
  }

  close(): void {
    this.#socket.close(this.#deleted ? 'later' : 'now');
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #ask(asked: NetlinkRequest): readonly NetlinkMessage[] {
    const [outcome] = exchange(this.#socket, [asked]);
    if (outcome?.error !== undefined) throw outcome.error satisfies KernelError;
    return outcome?.messages ?? [];
  }
}

const NETLINK_NETFILTER = 12;
/** struct nfgenmsg */
const GENERIC_HEADER = 4;
/** NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_BATCH_GENID, NFTA_GEN_ID */
const BATCH_BEGIN = 16;
const BATCH_END = 17;
const BATCH_GENERATION = 1;
const GENERATION_ID = 1;

const DELETIONS: ReadonlySet<number> = new Set([
  Message.deleteTable,
  Message.deleteChain,
  Message.deleteRule,
  Message.deleteSet,
  Message.deleteElement,
]);

/** Begin or end of a batch: res_id (be16) is the subsystem that it is for. */
function edge(type: number, generation?: number): NetlinkRequest {
  const nodes = generation === undefined ? [] : [[BATCH_GENERATION, be32(generation)] as const];
  const body = Buffer.concat([Buffer.of(0, 0, 0, SUBSYSTEM), encodeTree(nodes)]);
  return {
    what: type === BATCH_BEGIN ? 'nf_tables transaction' : 'nf_tables commit',
    type,
    flags: 0,
    body,
    silent: true,
  };
}
