import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

/** What the reference's host-local does to a store, in short: reads all, takes the next name, knows of no index. */
export function referenceAdd(
  store: string,
  owner: string,
  candidates: readonly string[],
): string | undefined {
  mkdirSync(store, { recursive: true });
  writeFileSync(`${store}/lock`, '');
  const taken = new Set(readdirSync(store));
  if ([...taken].some((name) => name !== 'lock' && readFileSync(`${store}/${name}`, 'utf8').trim() === owner))
    return undefined;
  const free = candidates.find((name) => !taken.has(name));
  if (free === undefined) return undefined;
  writeFileSync(`${store}/${free}`, owner, { flag: 'wx', mode: 0o600 });
  writeFileSync(`${store}/last_reserved_ip.0`, free);
  return free;
}

export function referenceDel(store: string, owner: string): void {
  for (const name of readdirSync(store)) {
    const path = `${store}/${name}`;
    if (name !== 'lock' && readFileSync(path, 'utf8').trim() === owner) rmSync(path);
  }
}
