import { sha512 as digest } from '@noble/hashes/sha2.js';

/**
 * SHA-512 of a text in UTF-8, 64 bytes. In JavaScript, because loading the built-in module crypto costs several milliseconds
 * of every start. The agent asks for the same few again and again.
 */
export function sha512(text: string): Buffer {
  const known = KNOWN.get(text);
  if (known !== undefined) return known;
  if (KNOWN.size >= MOST_KNOWN) KNOWN.clear();
  const hash = Buffer.from(digest(Buffer.from(text)));
  KNOWN.set(text, hash);
  return hash;
}

const KNOWN = new Map<string, Buffer>();
/** Five for each of 1,600 containers. */
const MOST_KNOWN = 8_000;
