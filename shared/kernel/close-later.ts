import { closeSync } from 'node:fs';
import { libc } from './libc.ts';

/**
 * Closes a descriptor whose release waits in the kernel, without waiting for it: the last descriptor of a netfilter socket, at the end of the
 * process too, waits for a grace period (about 15 ms) while anything deleted from nf_tables is on its way out.
 *
 * The file is registered with an io_uring of its own, which then holds it as well, and both descriptors are closed. The kernel takes a ring
 * apart in a worker thread (io_ring_exit_work), and there the waiting happens. Nothing is ever submitted to the ring.
 */
export function closeLater(fd: number): void {
  // Refused where io_uring is not to be had (kernel.io_uring_disabled, seccomp, before Linux 5.1): then the close is an ordinary one.
  const ring = libc().io_uring_setup(ONE_ENTRY, Buffer.alloc(IO_URING_PARAMS));
  if (ring >= 0) {
    const files = Buffer.alloc(4);
    files.writeInt32LE(fd);
    libc().io_uring_register(ring, IORING_REGISTER_FILES, files, 1);
  }
  closeSync(fd);
  if (ring >= 0) closeSync(ring);
}

/** The smallest ring there is. */
const ONE_ENTRY = 1;
/** linux/io_uring.h: sizeof(struct io_uring_params), all zero: no polling thread, no flags. The kernel fills in what the ring can do. */
const IO_URING_PARAMS = 120;
/** Its argument: i32 descriptors[]. */
const IORING_REGISTER_FILES = 2;
