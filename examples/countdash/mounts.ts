import { linesOf } from './tool.ts';

interface Mount {
  readonly id: string;
  readonly parent: string;
  readonly point: string;
}

/**
 * Whether something is mounted right at `path`, and to be seen there: what lies beneath a later mount of a folder above it does
 * not count.
 * @param mountinfo /proc/self/mountinfo; each line begins with `id parent major:minor root mount-point`
 */
export function isMountPoint(path: string, mountinfo: string): boolean {
  const mounts = linesOf(mountinfo).map((line): Mount => {
    const [id = '', parent = '', , , point = ''] = line.split(' ');
    return { id, parent, point };
  });
  const ids = new Set(mounts.map(({ id }) => id));
  let current = mounts.find(({ parent, id }) => !ids.has(parent) || parent === id);
  for (let above = current; above !== undefined;) {
    current = above;
    above = mounts
      .filter(({ id, parent, point }) => parent === current?.id && id !== parent && leadsTo(point, path))
      // Of two on the same mount, the one nearer to the root hides the other.
      .sort((one, other) => one.point.length - other.point.length)[0];
  }
  return current?.point === path;
}

function leadsTo(point: string, path: string): boolean {
  return point === '/' || point === path || path.startsWith(`${point}/`);
}
