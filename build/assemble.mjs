/**
 * Listings of machine code for x64: each line is code, offset, label, instruction; the code fills the first 22 characters. `[name]` in it is the
 * 32-bit distance from the end of the instruction to a known address.
 * @param {readonly string[]} listing @param {Readonly<Record<string, number>>} known addresses by name @param {number} address where the code will be
 */
export function assemble(listing, known, address) {
  /** @type {number[]} */
  const bytes = [];
  for (const line of listing) {
    const code = line.slice(0, 22).trim().split(' ');
    const length = code.reduce((sum, word) => sum + (word.startsWith('[') ? 4 : 1), 0);
    const end = address + bytes.length + length;
    for (const word of code) {
      if (!word.startsWith('[')) bytes.push(Number.parseInt(word, 16));
      else bytes.push(...int32((known[word.slice(1, -1)] ?? 0) - end));
    }
  }
  return Buffer.from(bytes);
}

/** @param {number} value */
function int32(value) {
  const bytes = Buffer.alloc(4);
  // Only the length counts when the address is not known yet.
  bytes.writeInt32LE(value | 0);
  return bytes;
}
