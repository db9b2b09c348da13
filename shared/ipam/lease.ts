/**
 * Contents of a lease file: `<container id>\r\n<ifname>`, without a newline at the end. Files of old releases of the
 * reference hold the container id alone. Documented in docs/reference/files.md.
 */
export type LeaseText =
  | { readonly kind: 'exact'; readonly containerId: string; readonly ifname: string }
  | { readonly kind: 'legacy'; readonly containerId: string }
  /** Nothing but blanks and zero bytes: what a crash leaves between creating a file and its data reaching the disk. */
  | { readonly kind: 'empty' }
  /** Neither: no DEL can ever release it. */
  | { readonly kind: 'unreadable' };

export function formatLease(containerId: string, ifname: string): string {
  return `${containerId}\r\n${ifname}`;
}

export function parseLease(text: string): LeaseText {
  const trimmed = text.trim();
  if (/^[\0\s]*$/.test(trimmed)) return { kind: 'empty' };
  const [containerId = '', ifname, ...more] = trimmed.split('\r\n');
  if (!CONTAINER_ID.test(containerId) || more.length > 0) return { kind: 'unreadable' };
  if (ifname === undefined) return { kind: 'legacy', containerId };
  return IFNAME.test(ifname) ? { kind: 'exact', containerId, ifname } : { kind: 'unreadable' };
}

/** What identifies the owner: the trimmed contents, as the reference compares them. Undefined when nobody owns it. */
export function ownerKey(lease: LeaseText): string | undefined {
  if (lease.kind === 'exact') return formatLease(lease.containerId, lease.ifname);
  return lease.kind === 'legacy' ? lease.containerId : undefined;
}

/** CNI's container id, and an interface name as the kernel takes it. Any length: what counts is that somebody can own it. */
const CONTAINER_ID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;
const IFNAME = /^[^\s/:\0]+$/;
