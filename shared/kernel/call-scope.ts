/**
 * What lives as long as one plugin call. A plugin's process ends with its call, but the node agent serves many: nothing that one call has
 * found out about the host may be believed in the next, and nothing that it has opened may stay open.
 */

/** Runs one call; closes at its end what it left to {@link closeAfterCall}. */
export function withCallScope<T>(work: () => T): T {
  calls += 1;
  const before = open;
  open = [];
  try {
    return work();
  } finally {
    for (const resource of open) resource.close();
    open = before;
  }
}

/** For what is read lazily, so that its user cannot close it. Outside a call it stays open until the process ends. */
export function closeAfterCall<T extends { close(): void }>(resource: T): T {
  open?.push(resource);
  return resource;
}

/** Values that are made once in each call; outside a call, once in a process. */
export class CallCache<T> {
  #call = 0;
  readonly #values = new Map<string, T>();

  get(key: string, make: () => T): T {
    if (this.#call !== calls) this.#values.clear();
    this.#call = calls;
    if (!this.#values.has(key)) this.#values.set(key, make());
    return this.#values.get(key) as T;
  }
}

/** Begun in this process. */
let calls = 0;
let open: { close(): void }[] | undefined;
