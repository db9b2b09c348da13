import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cachedResults, readCacheFile, type CachedResult } from '../shared/attachments/cached-results.ts';
import { CniCode, CniError } from '../shared/cni/errors.ts';
import { parseResult, renderResult, type CniResult } from '../shared/cni/results.ts';
import { isCniVersion } from '../shared/cni/versions.ts';
import { sortKeys, type Attachment } from './attachment.ts';
import type { NetworkList } from './network-list.ts';

/**
 * Results of ADD in libcni's place and format, so that either runtime can CHECK and DEL what the other one added:
 *
 *     <cacheDir>/results/<network>-<container id>-<ifname>     folder 0700, file 0600
 *     {"kind":"cniCacheV1", "containerId", "config": base64 of the list, "ifName", "networkName", "netns",
 *      "cniArgs": [[key, value]...], "capabilityArgs": {...}, "result": {...}}
 */
export const DEFAULT_CACHE_DIR = '/var/lib/cni';

const KIND = 'cniCacheV1';

type Key = Pick<Attachment, 'containerId' | 'ifname'>;

/** Replaces the file by renaming: a half-written one would make every later CHECK fail, and Nomad rebuild the network. */
export function writeCachedResult(
  cacheDir: string,
  list: NetworkList,
  attachment: Attachment,
  result: CniResult,
): void {
  const { containerId, netns, ifname, args, capabilityArgs } = attachment;
  const entry = {
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
  const beside = join(resultsDir(cacheDir), `.${process.pid}.tmp`);
  mkdirSync(resultsDir(cacheDir), { recursive: true, mode: 0o700 });
  writeFileSync(beside, JSON.stringify(entry), { mode: 0o600 });
  renameSync(beside, file);
}

/** The result of the last ADD; undefined when there is none. Throws CniError 6 when the file is damaged. */
export function readCachedResult(cacheDir: string, network: string, key: Key): CniResult | undefined {
  const file = cacheFile(cacheDir, network, key);
  try {
    const text = readCacheFile(file);
    if (text === undefined) return undefined;
    const document = JSON.parse(text) as { kind?: unknown; result?: unknown };
    // Before the format had a kind, the file was the result itself; libcni still reads those.
    return resultOf(document.kind === KIND ? document.result : document);
  } catch (thrown) {
    throw new CniError(
      CniCode.DecodingFailure,
      `cannot read cached result ${file}: ${(thrown as Error).message}`,
      { cause: thrown },
    );
  }
}

/** The arguments of the last ADD, for a DEL that is called with less; undefined when nothing readable is cached. */
export function readCachedAttachment(cacheDir: string, network: string, key: Key): Attachment | undefined {
  const found = cachedResults(network, key.containerId, { dir: resultsDir(cacheDir) });
  const cached = found.find(({ ifname }) => ifname === key.ifname);
  return cached === undefined ? undefined : attachmentOf(cached);
}

/** The cached attachments of a network, in the order of the file names. Files that cannot be read or are no cache entries are skipped. */
export function cachedAttachments(cacheDir: string, network: string): Attachment[] {
  return cachedResults(network, undefined, { dir: resultsDir(cacheDir) }).map(attachmentOf);
}

export function removeCachedResult(cacheDir: string, network: string, key: Key): void {
  rmSync(cacheFile(cacheDir, network, key), { force: true });
}

function resultsDir(cacheDir: string): string {
  return join(cacheDir, 'results');
}

function cacheFile(cacheDir: string, network: string, { containerId, ifname }: Key): string {
  return join(resultsDir(cacheDir), `${network}-${containerId}-${ifname}`);
}

function resultOf(document: unknown): CniResult {
  const version = (document as { cniVersion?: unknown } | undefined)?.cniVersion ?? '0.1.0';
  if (typeof version !== 'string' || !isCniVersion(version))
    throw new Error(`its cniVersion is ${JSON.stringify(version)}`);
  return parseResult(version, document);
}

function attachmentOf({ containerId, netns, ifname, args, capabilityArgs }: CachedResult): Attachment {
  return { containerId, netns, ifname, args, capabilityArgs };
}
