import { checked, libc } from './libc.ts';

/** Bytes from the kernel's generator (getrandom(2)); `node:crypto` would bring twenty modules into the startup snapshot for them. */
export function randomBytes(count: number): Buffer {
  const bytes = Buffer.alloc(count);
  for (let done = 0; done < count;) {
    const rest = bytes.subarray(done);
    done += checked('getrandom', libc().getrandom(rest, rest.length, 0));
  }
  return bytes;
}
