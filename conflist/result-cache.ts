import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CniCode, CniError } from '../shared/cni/errors.ts';
import { parseResult, renderResult, type CniResult } from '../shared/cni/results.ts';
import { isCniVersion } from '../shared/cni/versions.ts';
import type { Attachment } from './attachment.ts';
import type { NetworkList } from './network-list.ts';
import { sortKeys } from './plugin-input.ts';

/**
 * Results of ADD in libcni's place and format, so that either runtime can CHECK and DEL what the other one added:
 *
 *     <cacheDir>/results/<network>-<container id>-<ifname>     folder 0700, file 0600
 *     {"kind":"cniCacheV1", "containerId", "config": base64 of the list, "ifName", "networkName", "netns",
 *      "cniArgs": [[key, value]...], "capabilityArgs": {...}, "result": {...}}
 */
export const DEFAULT_CACHE_DIR = '/var/lib/cni';

const KIND = 'cniCacheV1';

interface CacheEntry {
  readonly kind: string;
  readonly containerId: string;
  readonly config: string;
  readonly ifName: string;
  readonly networkName: string;
  readonly netns?: string;
  readonly cniArgs?: readonly (readonly [string, string])[];
  readonly capabilityArgs?: Readonly<Record<string, unknown>>;
  readonly result?: unknown;
}

type Key = Pick<Attachment, 'containerId' | 'ifname'>;

/** Written beside and renamed, because a half-written file would make every later CHECK fail and so cost a workload its network. */
export function writeCachedResult(
  cacheDir: string,
  list: NetworkList,
  attachment: Attachment,
  result: CniResult,
): void {
  const { containerId, netns, ifname, args, capabilityArgs } = attachment;
  const entry: CacheEntry = {
    kind: KIND,
    containerId,
    config: Buffer.from(list.text).toString('base64'),
    ifName: ifname,
    networkName: list.name,
    ...(netns === '' ? {} : { netns }),
    ...(args.length === 0 ? {} : { cniArgs: args }),
    ...(Object.keys(capabilityArgs).length === 0 ? {} : { capabilityArgs }),
    result: sortKeys(renderResult(list.cniVersion, result)),
  };
  const file = cacheFile(cacheDir, list.name, attachment);
  const beside = join(folder(cacheDir), `.${process.pid}.tmp`);
  mkdirSync(folder(cacheDir), { recursive: true, mode: 0o700 });
  writeFileSync(beside, JSON.stringify(entry), { mode: 0o600 });
  renameSync(beside, file);
}

/** The result of the last ADD; undefined when there is none. Throws CniError 6 when the file is damaged. */
export function readCachedResult(cacheDir: string, network: string, key: Key): CniResult | undefined {
  const file = cacheFile(cacheDir, network, key);
  const text = readIfThere(file);
  if (text === undefined) return undefined;
  try {
    const document = JSON.parse(text) as Partial<CacheEntry>;
    // Before the format had a kind, the file was the result itself; libcni still reads those.
    return resultOf(document.kind === KIND ? document.result : document);
  } catch (thrown) {
    throw new CniError(
      CniCode.DecodingFailure,
      `the cached result ${file} cannot be read: ${(thrown as Error).message}`,
      { cause: thrown },
    );
  }
}

/** What a runtime gave to the last ADD, for a DEL that is asked with less; undefined when nothing (readable) is cached. */
export function readCachedAttachment(cacheDir: string, network: string, key: Key): Attachment | undefined {
  const entry = parseEntry(readIfThere(cacheFile(cacheDir, network, key)));
  return entry === undefined ? undefined : attachmentOf(entry);
}

/** Every attachment that the cache knows for a network, in the order of the file names. Files that are no cache entries are passed over. */
export function cachedAttachments(cacheDir: string, network: string): Attachment[] {
  return list(folder(cacheDir))
    .sort()
    .map((name) => parseEntry(readIfThere(join(folder(cacheDir), name))))
    .filter((entry) => entry !== undefined)
    .filter(({ networkName }) => networkName === network)
    .map(attachmentOf);
}

export function removeCachedResult(cacheDir: string, network: string, key: Key): void {
  rmSync(cacheFile(cacheDir, network, key), { force: true });
}

function folder(cacheDir: string): string {
  return join(cacheDir, 'results');
}

function cacheFile(cacheDir: string, network: string, { containerId, ifname }: Key): string {
  return join(folder(cacheDir), `${network}-${containerId}-${ifname}`);
}

function resultOf(document: unknown): CniResult {
  const version = (document as { cniVersion?: unknown } | undefined)?.cniVersion ?? '0.1.0';
  if (typeof version !== 'string' || !isCniVersion(version))
    throw new Error(`its cniVersion is ${JSON.stringify(version)}`);
  return parseResult(version, document);
}

function parseEntry(text: string | undefined): CacheEntry | undefined {
  if (text === undefined) return undefined;
  try {
    const entry = JSON.parse(text) as Partial<CacheEntry> | null;
    const whole =
      entry?.kind === KIND &&
      [entry.containerId, entry.ifName, entry.networkName].every(
        (part) => typeof part === 'string' && part !== '',
      );
    return whole ? (entry as CacheEntry) : undefined;
  } catch {
    return undefined;
  }
}

function attachmentOf({ containerId, netns, ifName, cniArgs, capabilityArgs }: CacheEntry): Attachment {
  return {
    containerId,
    netns: netns ?? '',
    ifname: ifName,
    args: cniArgs ?? [],
    capabilityArgs: capabilityArgs ?? {},
  };
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (thrown) {
    if (isAbsent(thrown)) return [];
    throw thrown;
  }
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (thrown) {
    if (isAbsent(thrown)) return undefined;
    throw thrown;
  }
}

function isAbsent(thrown: unknown): boolean {
  const { code } = thrown as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENOTDIR';
}
