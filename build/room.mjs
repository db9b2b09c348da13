/** Unused places in the Node binary's own pages, for a little code and a little data of ours. */
import { PF_X, PT, demand } from './elf.mjs';

const PAGE = 4096;

/**
 * Zeros between the end of the executable segment and the end of its page, in the file as in memory.
 * @param {import('./elf.mjs').Elf} elf @param {number} size
 * @returns {{ offset: number, address: number, take(): void }} `take` makes the segment reach over them
 */
export function roomForCode(elf, size) {
  const segments = elf.segments();
  const segment = segments.find(({ type, flags }) => type === PT.LOAD && (flags & PF_X) !== 0);
  demand(segment && segment.fileSize === segment.memorySize, 'no plain executable segment');
  const end = segment.offset + segment.fileSize;
  const padding = -end & 15;
  const offset = end + padding;
  const pageEnd = Math.ceil(end / PAGE) * PAGE;
  demand(offset + size <= pageEnd, 'no room for the stub behind the executable segment');
  demand(
    segments.every(
      (other) => other.type !== PT.LOAD || other.offset <= segment.offset || other.offset >= pageEnd,
    ),
    'another segment begins in the page of the stub',
  );
  demand(
    elf.bytes.subarray(end, offset + size).every((byte) => byte === 0),
    'the room for the stub is in use',
  );
  return {
    offset,
    address: segment.address + segment.fileSize + padding,
    take: () => elf.resizeSegment(segment, segment.fileSize + padding + size),
  };
}

/**
 * Zeroed memory between the end of the writable segment (.bss) and the end of its page: it is there, only not claimed.
 * @param {import('./elf.mjs').Elf} elf @param {number} size
 * @returns {{ address: number, take(): void }} aligned to 16 bytes
 */
export function roomForData(elf, size) {
  const segment = elf
    .segments()
    .find(({ type, fileSize, memorySize }) => type === PT.LOAD && memorySize > fileSize);
  demand(segment, 'no writable segment with zeroed memory');
  const end = segment.address + segment.memorySize;
  const address = Math.ceil(end / 16) * 16;
  demand(address + size <= Math.ceil(end / PAGE) * PAGE, 'no room for data behind .bss');
  return {
    address,
    take: () => elf.resizeSegment(segment, segment.fileSize, address + size - segment.address),
  };
}
