/**
 * Memory for datagrams that stay: one behind the other in large pieces, each beginning at a multiple of 4, so that its lengths can be
 * read as numbers of 32 bits. What is not written to costs nothing.
 */
export class Shelf {
  readonly #largest: number;
  #piece: Buffer = Buffer.alloc(0);
  #used = 0;

  /** @param largest bytes that a datagram may have */
  constructor(largest: number) {
    this.#largest = largest;
  }

  /** Room for the next datagram; the same again, until something is kept. */
  room(): Buffer {
    if (this.#piece.length - this.#used < this.#largest) {
      this.#piece = Buffer.allocUnsafeSlow(this.#largest * PIECE);
      this.#used = 0;
    }
    return this.#piece.subarray(this.#used, this.#used + this.#largest);
  }

  /** The first bytes of the room, which nobody else gets any more. */
  keep(length: number): Buffer {
    const start = this.#used;
    this.#used += (length + 3) & ~3;
    return this.#piece.subarray(start, start + length);
  }
}

/** Largest datagrams in a piece. */
const PIECE = 16;
