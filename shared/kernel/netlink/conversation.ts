import { Flags, FlagsGet, MessageType } from 'netlink/dist/constants.js';
import { CniCode, CniError } from '../../cni/errors.ts';
import { KernelError } from '../errno.ts';
import {
  type NetlinkMessage,
  type NetlinkRequest,
  type ReceivedMessage,
  decodeDone,
  decodeError,
  messageAt,
} from './message.ts';

/** A socket: NetlinkSocket, or recorded messages in tests. */
export interface Transport {
  send(requests: readonly NetlinkRequest[]): number;
  receive(first: number, count: number): readonly ReceivedMessage[];
}

/** The result of one request of a batch. */
export interface NetlinkOutcome {
  readonly messages: readonly NetlinkMessage[];
  readonly error: KernelError | undefined;
}

/**
 * Sends requests in one write and waits until each is answered. rtnetlink carries out each request that it can, also after one that
 * failed; an nfnetlink batch is a transaction. A refused `silent` request (part of such a transaction) means that all unanswered ones
 * are refused too: the kernel need not answer those.
 * @returns one outcome per request, in order
 */
export function exchange(transport: Transport, requests: readonly NetlinkRequest[]): NetlinkOutcome[] {
  const answers = requests.map(({ silent, answered }) => new Answer(silent !== true, answered === true));
  const first = transport.send(requests);
  while (answers.some(({ pending }) => pending)) {
    for (const message of transport.receive(first, requests.length)) {
      const index = message.sequence - first;
      const request = requests[index];
      const answer = answers[index];
      if (request === undefined || answer === undefined) continue;
      answer.take(request.what, message);
      if (request.silent === true && answer.error !== undefined) refuseRest(answers, answer.error);
    }
  }
  return answers.map(({ messages, error }) => ({ messages, error }));
}

/**
 * All messages of a dump. NLM_F_DUMP_INTR says that the list changed meanwhile, so entries may be missing or repeated; then the dump is
 * repeated, up to {@link DUMP_ATTEMPTS} times.
 * @throws KernelError when the kernel refuses or aborts; CniError 11 when the list changed during every attempt
 */
export function dump(transport: Transport, request: NetlinkRequest): NetlinkMessage[] {
  for (let attempt = 1; attempt <= DUMP_ATTEMPTS; attempt++) {
    const messages = dumpOnce(transport, request);
    if (messages !== 'interrupted') return messages;
  }
  throw dumpUnstable(request.what);
}

export function dumpUnstable(what: string): CniError {
  return new CniError(
    CniCode.TryAgainLater,
    `${what}: the list changed during each of ${DUMP_ATTEMPTS} attempts to read it`,
  );
}

/**
 * Listing a thousand links takes some milliseconds, as long as a change: on a busy machine many attempts in a row can be interrupted, fifty
 * hardly ever are.
 */
export const DUMP_ATTEMPTS = 50;

class Answer {
  readonly messages: NetlinkMessage[] = [];
  error: KernelError | undefined;
  pending: boolean;
  readonly #endsWithMessage: boolean;

  constructor(pending: boolean, endsWithMessage: boolean) {
    this.pending = pending;
    this.#endsWithMessage = endsWithMessage;
  }

  take(what: string, message: ReceivedMessage): void {
    if (message.type === MessageType.ERROR) {
      this.error = decodeError(what, message);
      this.pending = false;
    } else if (message.type !== MessageType.NOOP) {
      this.messages.push(copyOf(message));
      if (this.#endsWithMessage) this.pending = false;
    }
  }
}

function refuseRest(answers: readonly Answer[], error: KernelError): void {
  for (const answer of answers) {
    if (answer.pending) answer.error = error;
    answer.pending = false;
  }
}

function dumpOnce(transport: Transport, request: NetlinkRequest): NetlinkMessage[] | 'interrupted' {
  const messages: NetlinkMessage[] = [];
  let interrupted = false;
  const first = transport.send([{ ...request, flags: request.flags | FlagsGet.DUMP, silent: true }]);
  for (;;) {
    for (const message of transport.receive(first, 1)) {
      interrupted ||= (message.flags & Flags.DUMP_INTR) !== 0;
      if (message.type === MessageType.DONE || message.type === MessageType.ERROR) {
        const error = (message.type === MessageType.DONE ? decodeDone : decodeError)(request.what, message);
        if (error !== undefined) throw error;
        return interrupted ? 'interrupted' : messages;
      }
      messages.push(copyOf(message));
    }
  }
}

/** The receive buffer is reused, so messages are copied. */
function copyOf({ type, flags, body }: ReceivedMessage): NetlinkMessage {
  return { type, flags, body: Buffer.from(body) };
}

/** A socket that returns whole datagrams: NetlinkSocket, or recorded ones in tests. */
export interface DatagramTransport {
  send(requests: readonly NetlinkRequest[]): number;
  receiveDatagram(sequence: number): Buffer;
}

/**
 * A dump kept as the kernel's datagrams, for lists so long that decoding each message takes too much time: the caller searches the bytes
 * (`indexOf` is native) and decodes the messages that match. It is read on demand. Until it is complete, its socket must not be used
 * for anything else.
 */
export class Listing {
  readonly #transport: DatagramTransport;
  readonly #request: NetlinkRequest;
  #datagrams: Buffer[] = [];
  #sequence: number;
  #attempt = 1;
  #complete = false;

  constructor(transport: DatagramTransport, request: NetlinkRequest) {
    this.#transport = transport;
    this.#request = { ...request, flags: request.flags | FlagsGet.DUMP, silent: true };
    this.#sequence = transport.send([this.#request]);
  }

  /** Increases when the list changed meanwhile and is read again: earlier findings are then invalid. */
  get attempt(): number {
    return this.#attempt;
  }

  get complete(): boolean {
    return this.#complete;
  }

  /**
   * Whole messages of the list, concatenated; each datagram begins at an address that is a multiple of 4.
   * @returns undefined after the last
   * @throws KernelError when the kernel refuses or aborts; CniError 11 when the list changed during every attempt
   */
  datagram(at: number): Buffer | undefined {
    while (!this.#complete && this.#datagrams.length <= at) this.readOn();
    return this.#datagrams[at];
  }

  /** Receives the next datagram. */
  readOn(): void {
    if (this.#complete) return;
    let part = this.#receive();
    if (!part.interrupted) {
      if (part.end > 0) this.#datagrams.push(part.datagram.subarray(0, part.end));
      this.#complete = part.isLast;
      return;
    }
    // Entries may be missing or repeated, also in earlier datagrams (see `dump`).
    while (!part.isLast) part = this.#receive();
    if (this.#attempt === DUMP_ATTEMPTS) throw dumpUnstable(this.#request.what);
    this.#attempt += 1;
    this.#datagrams = [];
    this.#sequence = this.#transport.send([this.#request]);
  }

  readAll(): void {
    while (!this.#complete) this.readOn();
  }

  #receive(): Part {
    return parse(this.#request.what, this.#transport.receiveDatagram(this.#sequence));
  }
}

interface Part {
  readonly datagram: Buffer;
  /** End of the messages; in the last datagram, start of NLMSG_DONE or NLMSG_ERROR. */
  readonly end: number;
  readonly isLast: boolean;
  readonly interrupted: boolean;
}

/** Iterates over the headers: length u32, type u16, flags u16. */
function parse(what: string, datagram: Buffer): Part {
  const words = new Uint32Array(datagram.buffer, datagram.byteOffset, datagram.length >> 2);
  let flags = 0;
  for (let at = 0; at + HEADER_WORDS <= words.length;) {
    const length = words[at] ?? 0;
    if (length < 4 * HEADER_WORDS || 4 * at + length > datagram.length) {
      const detail = `message at ${4 * at} claims ${length} bytes of ${datagram.length - 4 * at}`;
      throw new KernelError('netlink answer', EBADMSG, { detail });
    }
    const kind = words[at + 1] ?? 0;
    flags |= kind >>> 16;
    const type = kind & 0xffff;
    if (type === MessageType.DONE || type === MessageType.ERROR) {
      const message = messageAt(datagram, 4 * at);
      const error = (type === MessageType.DONE ? decodeDone : decodeError)(what, message);
      if (error !== undefined) throw error;
      return { datagram, end: 4 * at, isLast: true, interrupted: (flags & Flags.DUMP_INTR) !== 0 };
    }
    at += (length + 3) >> 2;
  }
  return { datagram, end: datagram.length, isLast: false, interrupted: (flags & Flags.DUMP_INTR) !== 0 };
}

const HEADER_WORDS = 4;
const EBADMSG = 74;
