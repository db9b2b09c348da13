import { lstatSync, readdirSync, statSync } from 'node:fs';
import { addresses } from '../kernel/rtnetlink/addresses.ts';
import { Rtnetlink } from '../kernel/rtnetlink/rtnetlink.ts';

/** Where runtimes keep namespaces by name, and the one that every process shows. */
const NAMED = ['/run/netns', '/var/run/netns', '/run/docker/netns', '/var/run/docker/netns'];

/**
 * Every address of every network namespace that can be found from here (by name, or through a process), without prefix
 * length, with the path of the namespace that has it. Costs a netlink dump per namespace.
 */
export function addressesInUse(): Map<string, string> {
  const found = new Map<string, string>();
  for (const path of visibleNamespaces()) {
    for (const address of addressesOf(path)) found.set(address, path);
  }
  return found;
}

/** One path per namespace. */
function visibleNamespaces(): string[] {
  const byIdentity = new Map<string, string>();
  for (const path of [...NAMED.flatMap(entriesOf), ...processNamespaces()]) {
    const identity = identityOf(path);
    if (identity !== undefined && !byIdentity.has(identity)) byIdentity.set(identity, path);
  }
  return [...byIdentity.values()];
}

function processNamespaces(): string[] {
  return listFolder('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => `/proc/${name}/ns/net`);
}

function entriesOf(folder: string): string[] {
  return lstatSync(folder, { throwIfNoEntry: false }) === undefined
    ? []
    : listFolder(folder).map((name) => `${folder}/${name}`);
}

/** Processes end and namespaces are removed while we look. */
function identityOf(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

function addressesOf(path: string): string[] {
  try {
    using rtnetlink = Rtnetlink.openIn(path);
    return addresses(rtnetlink).map(({ address }) => address.replace(/\/\d+$/, ''));
  } catch {
    // Gone by now, or a file that was left when its namespace was unmounted.
    return [];
  }
}

function listFolder(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
