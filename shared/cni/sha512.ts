import { sha512 as digest } from '@noble/hashes/sha2.js';

/**
 * SHA-512 of a text in UTF-8, 64 bytes. In JavaScript, because loading the built-in module crypto costs several milliseconds
 * of every start.
 */
export function sha512(text: string): Buffer {
  return Buffer.from(digest(Buffer.from(text)));
}
