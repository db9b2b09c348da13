import type { XtPart } from '../iptables-nft/xtables.ts';
import { PART_DATA } from './layout.ts';

/**
 * struct xt_entry_match and xt_entry_target:
 * ```
 *  0          2            31            32                 size
 * +----------+------------+-------------+------------------+
 * | size u16 | name 29    | revision u8 | data, padded     |
 * +----------+------------+-------------+------------------+
 * ```
 * The kernel compares the size with its own struct's, padded to 8 bytes (XT_ALIGN).
 */
export function encodePart({ name, revision, info }: XtPart): Buffer {
  const bytes = Buffer.alloc(PART_DATA + Math.ceil(info.length / 8) * 8);
  bytes.writeUInt16LE(bytes.length, 0);
  bytes.write(name, 2, 29);
  bytes[31] = revision;
  bytes.set(info, PART_DATA);
  return bytes;
}
