/** The registers of nf_tables while a rule is followed by hand: 64 bytes, of which each is known or not. */

/** Bytes of which some may not be known. */
export type Bytes = readonly (number | undefined)[];

export class Registers {
  readonly #bytes: (number | undefined)[] = Array.from({ length: SIZE });

  read(register: number, length: number): Bytes {
    const at = offsetOf(register);
    return this.#bytes.slice(at, at + length);
  }

  write(register: number, value: Bytes): void {
    value.forEach((byte, at) => {
      this.#bytes[offsetOf(register) + at] = byte;
    });
  }
}

/** Bytes of which nothing is known. */
export function unknownBytes(length: number): Bytes {
  return Array.from({ length });
}

export function areKnown(bytes: Bytes): bytes is readonly number[] {
  return bytes.every((byte) => byte !== undefined);
}

/** How what is known of two values compares: negative, 0 and positive as usual, undefined when it cannot be told. */
export function compareBytes(left: Bytes, right: Bytes): number | undefined {
  const different = left.findIndex((byte, at) => byte !== right[at]);
  if (different < 0) return areKnown(left) ? 0 : undefined;
  const [a, b] = [left[different], right[different]];
  return a === undefined || b === undefined ? undefined : a - b;
}

/** Whether they are surely different, though not everything is known of them. */
export function differ(left: Bytes, right: Bytes): boolean {
  return left.some((byte, at) => byte !== undefined && right[at] !== undefined && byte !== right[at]);
}

const SIZE = 64;

/** NFT_REG_1 (1) to NFT_REG_4 are 16 bytes each; NFT_REG32_00 (8) to _15 the same space in words. */
function offsetOf(register: number): number {
  return register < 8 ? (register - 1) * 16 : (register - 8) * 4;
}
