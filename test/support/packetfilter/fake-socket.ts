/** The netlink side of FakeNftables: what a socket of NETLINK_NETFILTER answers. */
import type { NetlinkRequest, ReceivedMessage } from '../../../shared/kernel/netlink/message.ts';
import { NetlinkSocket } from '../../../shared/kernel/netlink/socket.ts';
import { Message, SUBSYSTEM } from '../../../shared/packetfilter/nftables/messages.ts';
import { attributeOf, encodeTree, type AttributeNode } from '../../../shared/packetfilter/nftables/nlattr.ts';
import {
  elementsOf,
  findElement,
  textAt,
  usesOf,
  valueOf,
  type FakeChain,
  type FakeNftables,
  type FakeRule,
  type FakeSet,
  type FakeTable,
} from './fake-nftables.ts';

/** From now on, netfilter sockets of this process lead to what `kernel` returns; for rtnetlink, the namespace has no links, addresses and routes. */
export function answerNetlinkSockets(kernel: () => FakeNftables): void {
  NetlinkSocket.open = (protocol) =>
    new FakeSocket(kernel(), protocol === NETLINK_NETFILTER ? QUESTIONS : {}) as unknown as NetlinkSocket;
}

class FakeSocket implements Pick<
  NetlinkSocket,
  'send' | 'receive' | 'receiveDatagram' | 'isInNamespaceOf' | 'close'
> {
  readonly #kernel: FakeNftables;
  readonly #questions: typeof QUESTIONS;
  #sequence = 1;
  #answers: ReceivedMessage[] = [];

  constructor(kernel: FakeNftables, questions: typeof QUESTIONS) {
    this.#kernel = kernel;
    this.#questions = questions;
  }

  send(requests: readonly NetlinkRequest[]): number {
    const first = this.#sequence;
    this.#sequence += requests.length;
    if (requests[0]?.type === BATCH_BEGIN) this.#commit(requests, first);
    else requests.forEach((request, at) => this.#answers.push(...this.#answersTo(request, first + at)));
    return first;
  }

  receive(first: number, count: number): ReceivedMessage[] {
    const own = this.#answers.filter(({ sequence }) => sequence >= first && sequence < first + count);
    this.#answers = this.#answers.filter((answer) => !own.includes(answer));
    if (own.length === 0) throw new Error('waits for an answer although the kernel has given all');
    return own;
  }

  /** One message a datagram: the reader must not depend on how many there are. */
  receiveDatagram(sequence: number): Buffer {
    const answer = this.#answers.find((one) => one.sequence === sequence);
    if (answer === undefined) throw new Error('waits for a datagram although the kernel has given all');
    this.#answers = this.#answers.filter((one) => one !== answer);
    const datagram = Buffer.alloc(HEADER + ((answer.body.length + 3) & ~3));
    datagram.writeUInt32LE(HEADER + answer.body.length, 0);
    datagram.writeUInt16LE(answer.type, 4);
    datagram.writeUInt16LE(answer.flags, 6);
    datagram.writeUInt32LE(sequence, 8);
    answer.body.copy(datagram, HEADER);
    // Listings are read as 32-bit numbers: memory of its own is aligned.
    const aligned = Buffer.from(new ArrayBuffer(datagram.length));
    datagram.copy(aligned);
    return aligned;
  }

  isInNamespaceOf(): boolean {
    return true;
  }

  close(): void {
    this.#answers = [];
  }

  #commit(requests: readonly NetlinkRequest[], first: number): void {
    const [begin] = requests;
    const generation = attributeOf(attributesIn(begin), BATCH_GENERATION)?.readUInt32BE();
    const changes = requests.slice(1, -1).map((request) => ({
      message: request.type & 0xff,
      flags: request.flags,
      family: request.body[0] ?? 0,
      attributes: attributesIn(request),
    }));
    const refused = this.#kernel.commit(changes, generation);
    if (refused !== undefined) this.#answers.push(result(first + 1 + refused.index, refused.errno));
    requests.forEach((request, at) => {
      if (request.silent !== true && refused?.index !== at - 1) this.#answers.push(result(first + at, 0));
    });
  }

  #answersTo(request: NetlinkRequest, sequence: number): ReceivedMessage[] {
    const message = request.type & 0xff;
    const family = request.body[0] ?? 0;
    const isDump = (request.flags & DUMP) === DUMP;
    const found = (this.#questions[message] ?? (() => []))(
      this.#kernel,
      family,
      attributesIn(request),
      isDump,
    );
    const messages = found.map((nodes) => ({
      type: (SUBSYSTEM << 8) | message,
      flags: isDump ? MULTI : 0,
      sequence,
      body: encodeTree(nodes, Buffer.of(family, 0, 0, 0)),
    }));
    if (isDump) return [...messages, { type: DONE, flags: MULTI, sequence, body: Buffer.alloc(4) }];
    return messages.length === 0 ? [result(sequence, ENOENT)] : messages.slice(0, 1);
  }
}

type Question = (kernel: FakeNftables, family: number, asked: Buffer, isDump: boolean) => AttributeNode[][];

const QUESTIONS: Readonly<Record<number, Question>> = {
  [Message.getGeneration]: (kernel) => [[[1, kernel.generation]]],
  [Message.getTable]: (kernel, family, asked, isDump) =>
    tablesOf(kernel, family)
      .filter(({ name }) => isDump || name === textAt(asked, 1))
      .map(({ name, userdata }) => [[1, name], ...optional(6, userdata)]),
  [Message.getChain]: (kernel, family, asked, isDump) =>
    tablesOf(kernel, family)
      .filter(({ name }) => isDump || name === textAt(asked, 1))
      .flatMap((table) =>
        [...table.chains.values()]
          .filter(({ name }) => isDump || name === textAt(asked, 3))
          .map((chain) => chainNodes(table, chain)),
      ),
  [Message.getRule]: (kernel, family, asked) =>
    tablesOf(kernel, family)
      .filter(({ name }) => attributeOf(asked, 1) === undefined || name === textAt(asked, 1))
      .flatMap((table) =>
        [...table.chains.values()]
          .filter(({ name }) => attributeOf(asked, 2) === undefined || name === textAt(asked, 2))
          .flatMap((chain) => chain.rules.map((rule) => ruleNodes(table, chain, rule))),
      ),
  [Message.getSet]: (kernel, family, asked) => {
    const set = kernel.table(family, textAt(asked, 1))?.sets.get(textAt(asked, 2));
    return set === undefined ? [] : [[...nodesOf(set.attributes)]];
  },
  [Message.getElement]: (kernel, family, asked, isDump) => {
    const set = kernel.table(family, textAt(asked, 1))?.sets.get(textAt(asked, 2));
    if (set === undefined) return [];
    const found = isDump
      ? [...set.elements.values()]
      : elementsOf(asked).flatMap((element) => findElement(set, valueOf(element)) ?? []);
    if (found.length === 0) return [];
    return [
      [
        [1, textAt(asked, 1)],
        [2, set.name],
        [3, found.map((element) => [1, element] as const)],
      ],
    ];
  },
};

function tablesOf(kernel: FakeNftables, family: number): readonly FakeTable[] {
  return kernel.tables.filter((table) => family === 0 || table.family === family);
}

function chainNodes(table: FakeTable, chain: FakeChain): AttributeNode[] {
  return [
    [1, table.name],
    [3, chain.name],
    ...optional(4, chain.hook),
    ...optional(5, chain.policy),
    [6, usesOf(table, chain.name)],
    ...optional(7, chain.type),
    ...optional(12, chain.userdata),
  ];
}

function ruleNodes(table: FakeTable, chain: FakeChain, rule: FakeRule): AttributeNode[] {
  return [
    [1, table.name],
    [2, chain.name],
    [3, rule.handle],
    [4, rule.expressions],
    ...optional(7, rule.userdata),
  ];
}

function nodesOf(attributes: FakeSet['attributes']): AttributeNode[] {
  return [1, 2, 3, 4, 5, 6, 7].flatMap((type) => optional(type, attributeOf(attributes, type)));
}

function optional(type: number, value: Buffer | undefined): AttributeNode[] {
  return value === undefined ? [] : [[type, value]];
}

function attributesIn(request: NetlinkRequest | undefined): Buffer {
  return Buffer.from(request?.body.subarray(GENERIC_HEADER) ?? []);
}

function result(sequence: number, errno: number): ReceivedMessage {
  const body = Buffer.alloc(20);
  body.writeInt32LE(-errno);
  return { type: ERROR, flags: 0, sequence, body };
}

const NETLINK_NETFILTER = 12;
/** struct nlmsghdr, struct nfgenmsg */
const HEADER = 16;
const GENERIC_HEADER = 4;
const ERROR = 2;
const DONE = 3;
const MULTI = 2;
const DUMP = 0x300;
const ENOENT = 2;
/** NFNL_MSG_BATCH_BEGIN, NFNL_BATCH_GENID */
const BATCH_BEGIN = 16;
const BATCH_GENERATION = 1;
