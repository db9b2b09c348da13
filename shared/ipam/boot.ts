import { lstatSync, readdirSync, readFileSync, statfsSync } from 'node:fs';

/**
 * The latest time, in milliseconds since 1970, at which this boot certainly had not begun: whatever was written before it
 * comes from an earlier boot. Undefined when there is no telling.
 *
 * The kernel's boot time alone proves nothing: it is "now minus uptime", and moves forward when the clock is set (a board
 * without a battery starts in 1970) and when a virtual machine is restored from a snapshot days later. So the oldest trace of
 * this boot must agree: birth and change times of entries on file systems that live in memory, which nobody can set back.
 */
export function bootBegan(
  folders: readonly string[] = IN_MEMORY,
  kernelStat = '/proc/stat',
): number | undefined {
  const traces = folders.filter(isInMemory).flatMap(tracesIn);
  const kernel = bootTimeOfKernel(kernelStat);
  if (kernel === undefined || traces.length === 0) return undefined;
  return Math.min(kernel, ...traces) - MARGIN_MS;
}

/** Made by the kernel and by init in the first second, and never emptied. */
const IN_MEMORY = ['/dev', '/run'];
/** linux/magic.h; devtmpfs is a tmpfs to statfs. */
const TMPFS_MAGIC = 0x01021994;
const RAMFS_MAGIC = 0x858458f6;
/** btime counts whole seconds and wavers by one. */
const MARGIN_MS = 5_000;

function isInMemory(folder: string): boolean {
  const type = statfsSync(folder).type;
  return type === TMPFS_MAGIC || type === RAMFS_MAGIC;
}

/** Zero stands for "not recorded". Entries that are mount points belong to other file systems: only those of the folder's own. */
function tracesIn(folder: string): number[] {
  const { dev } = lstatSync(folder);
  return [folder, ...readdirSync(folder).map((name) => `${folder}/${name}`)].flatMap((path) => {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined || stat.dev !== dev) return [];
    return [stat.birthtimeMs, stat.ctimeMs].filter((time) => time > 0);
  });
}

/** proc_stat(5): `btime <seconds since 1970>`. */
function bootTimeOfKernel(file: string): number | undefined {
  const seconds = /^btime (\d+)$/m.exec(readFileSync(file, 'utf8'))?.[1];
  return seconds === undefined ? undefined : Number(seconds) * 1000;
}
