import { withoutPrefixLength } from '../net/address.ts';
import { namespaceNamedAfter } from './attachments.ts';
import { addressesInUse, namespaceAt, type AddressesInUse } from './namespaces.ts';

/** An attachment of the host, as far as it tells whose a namespace is. */
interface KnownContainer {
  readonly containerId: string;
  readonly netns: string;
  readonly addresses: readonly string[];
}

export interface AddressedContainer {
  readonly containerId: string;
  /** Without prefix length. */
  readonly addresses: readonly string[];
  /** Those of them that lease files give to this container. */
  readonly leased: readonly string[];
}

export interface Holder {
  readonly path: string;
  readonly address: string;
}

/** The namespace that has one of the addresses and is not known to be another container's; `unknown` if a namespace could not be read. */
export type HolderOf = (attachment: AddressedContainer) => Holder | 'none' | 'unknown';

/** The host's namespaces by their addresses, and whose they are. */
export class AddressHolders {
  readonly #inUse: AddressesInUse = addressesInUse();
  /** Identity of a namespace -> the attachments that are known to be in it. */
  readonly #occupants: ReadonlyMap<string | undefined, readonly KnownContainer[]>;
  readonly #nsfs: number;

  constructor(facts: readonly KnownContainer[], nsfs: number) {
    this.#nsfs = nsfs;
    const placed = facts.flatMap((one) =>
      // The number of a process may be another process's by now.
      [one.netns, nameOf(one)].flatMap((path) =>
        path === undefined || path === '' || path.startsWith('/proc/')
          ? []
          : [{ identity: this.#identity(path), one }],
      ),
    );
    const groups = Map.groupBy(placed, ({ identity }) => identity);
    groups.delete(undefined);
    this.#occupants = new Map([...groups].map(([key, own]) => [key, own.map(({ one }) => one)]));
  }

  holderOf({ containerId, addresses, leased }: AddressedContainer): ReturnType<HolderOf> {
    const { byAddress, isComplete } = this.#inUse;
    for (const address of addresses) {
      if (isLoopback(address)) continue;
      for (const path of byAddress.get(address) ?? []) {
        // A lease is proof of ownership; without one, an address may have been given to another container since.
        if (leased.includes(address) || !this.#isOfAnother(path, address, containerId))
          return { path, address };
      }
    }
    return isComplete ? 'none' : 'unknown';
  }

  #isOfAnother(path: string, address: string, containerId: string): boolean {
    const occupants = this.#occupants.get(this.#identity(path)) ?? [];
    return (
      occupants.every((one) => one.containerId !== containerId) &&
      occupants.some((one) => one.addresses.map(withoutPrefixLength).includes(address))
    );
  }

  #identity(path: string): string | undefined {
    const found = namespaceAt(path, this.#nsfs);
    return typeof found === 'object' ? `${found.dev}:${found.ino}` : undefined;
  }
}

/** Every namespace has them. */
function isLoopback(address: string): boolean {
  return address.startsWith('127.') || address === '::1';
}

/** Where the container's namespace is if it is named after the container. */
export function nameOf({ containerId }: { readonly containerId: string }): string | undefined {
  return /^[\w.-]+$/.test(containerId) ? namespaceNamedAfter(containerId) : undefined;
}
