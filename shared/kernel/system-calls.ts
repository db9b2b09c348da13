/** Numbers of the system calls that the suite makes (asm/unistd_64.h, asm-generic/unistd.h): each architecture counts in its own way. */
export type SystemCall = keyof typeof X64;

/** @param arch as in process.arch */
export function systemCallNumbers(arch: string): Readonly<Record<SystemCall, number>> | undefined {
  return { x64: X64, arm64: ARM64 }[arch];
}

const X64 = {
  ioctl: 16,
  socket: 41,
  connect: 42,
  sendto: 44,
  recvfrom: 45,
  bind: 49,
  getsockname: 51,
  setsockopt: 54,
  getsockopt: 55,
  flock: 73,
  mount: 165,
  umount2: 166,
  exit_group: 231,
  ppoll: 271,
  unshare: 272,
  setns: 308,
  getrandom: 318,
  io_uring_setup: 425,
  io_uring_register: 427,
};

const ARM64: typeof X64 = {
  ioctl: 29,
  flock: 32,
  umount2: 39,
  mount: 40,
  ppoll: 73,
  exit_group: 94,
  unshare: 97,
  socket: 198,
  bind: 200,
  connect: 203,
  getsockname: 204,
  sendto: 206,
  recvfrom: 207,
  setsockopt: 208,
  getsockopt: 209,
  setns: 268,
  getrandom: 278,
  io_uring_setup: 425,
  io_uring_register: 427,
};
