import type { Readable } from 'node:stream';

/**
 * DNS over TCP (RFC 1035 section 4.2.2): each message behind its length.
 *
 *     0       2                2 + length
 *     +-------+----------------+
 *     | len BE| message        |
 *     +-------+----------------+
 */
export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

/** Calls `onMessage` for each whole message, however the bytes are cut on their way. */
export function readFrames(stream: Readable, onMessage: (message: Buffer) => void): void {
  let pending = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
      const end = 2 + pending.readUInt16BE(0);
      onMessage(pending.subarray(2, end));
      pending = pending.subarray(end);
    }
  });
}
