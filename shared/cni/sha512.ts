import { sha512 as digest } from '@noble/hashes/sha2.js';

let hash = (text: string): Buffer => Buffer.from(digest(Buffer.from(text)));

/** For a process that has the built-in module crypto anyway: a fiftieth of the time. */
export function useBuiltInSha512(builtIn: (text: string) => Buffer): void {
  hash = builtIn;
}

/**
 * SHA-512 of a text in UTF-8, 64 bytes. In JavaScript, because loading the built-in module crypto costs several milliseconds
 * of every start. The agent asks for the same few again and again.
 */
export function sha512(text: string): Buffer {
  const known = KNOWN.get(text);
  if (known !== undefined) return known;
  if (KNOWN.size >= MOST_KNOWN) KNOWN.clear();
  const made = hash(text);
  KNOWN.set(text, made);
  return made;
}

const KNOWN = new Map<string, Buffer>();
/** Five for each of 1,600 containers. */
const MOST_KNOWN = 8_000;
