import { Flags, FlagsGet, MessageType } from 'netlink/dist/constants.js';
import { KernelError } from '../errno.ts';
import { DUMP_ATTEMPTS, neverStill } from './conversation.ts';
import { decodeDone, decodeError, messageAt, type NetlinkRequest } from './message.ts';

/** What a listing needs of a socket; NetlinkSocket has it. */
export interface DatagramTransport {
  send(requests: readonly NetlinkRequest[]): number;
  receiveDatagram(sequence: number): Buffer;
}

/**
 * A dump that is kept as the kernel's datagrams, for lists so long that a step for each message would be too much: whoever looks for
 * something searches the bytes (`indexOf` is native) and decodes the messages around what it found. It is read as far as somebody looks;
 * until it is complete, no other dump can begin on its socket, and nothing else may be received there.
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

  /** Another number than before: the list changed under way and was read anew, so what was found so far is to be looked for again. */
  get attempt(): number {
    return this.#attempt;
  }

  get complete(): boolean {
    return this.#complete;
  }

  /**
   * Whole messages of the list, one behind the other; each datagram begins at an address that is a multiple of 4.
   * @returns undefined behind the last
   * @throws KernelError when the kernel refuses or breaks off; CniError 11 when the list never kept still
   */
  datagram(at: number): Buffer | undefined {
    while (!this.#complete && this.#datagrams.length <= at) this.readOn();
    return this.#datagrams[at];
  }

  /** The next datagram. */
  readOn(): void {
    if (this.#complete) return;
    let part = this.#receive();
    if (!part.interrupted) {
      if (part.end > 0) this.#datagrams.push(part.datagram.subarray(0, part.end));
      this.#complete = part.isLast;
      return;
    }
    // Entries may be missing or twice, also in what was read before (see `dump`).
    while (!part.isLast) part = this.#receive();
    if (this.#attempt === DUMP_ATTEMPTS) throw neverStill(this.#request.what);
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
  /** Where its messages end, and the kernel's word about the whole list may begin. */
  readonly end: number;
  readonly isLast: boolean;
  readonly interrupted: boolean;
}

/** Walks from header to header: length u32, type u16, flags u16. */
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
