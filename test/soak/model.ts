import { formatAddress, parseAddress } from '../../shared/net/address.ts';
import { addressesOf, instantiate, templateOf, withoutHashes, type Container } from './container.ts';
import { added, hostLines, namespaceLines, type Lines } from './state.ts';
import type { ListName } from './world.ts';

/** A statement about the host that must hold between operations and does not. */
export class Violation extends Error {}

/**
 * What the host must look like. The lines of a container are learned from the first ADD of each list on the otherwise idle host; from then on
 * the host must show its first state, plus these lines once for each living container, and nothing else.
 */
export class Model {
  readonly containers = new Set<Container>();
  #base: Lines = [];
  readonly #templates = new Map<ListName, { host: Lines; inside: Lines }>();
  #empty: Lines = [];
  #deletions = 0;

  /** The host's first state: shared chains and the bridge exist, no container does. */
  async learnBase(): Promise<void> {
    this.#base = await hostLines();
  }

  /** The state of a namespace that no plugin has changed. */
  async learnEmpty(netns: string): Promise<void> {
    this.#empty = await namespaceLines(netns);
  }

  /** @param before lines of the host before this container's ADD */
  async learn(container: Container, before: Lines): Promise<void> {
    const host = await hostLines();
    const removed = added(host, before);
    if (removed.length > 0) throw new Violation(`ADD of ${container.list} removed\n${show(removed)}`);
    this.#templates.set(container.list, {
      host: templateOf(added(before, host), container),
      inside: templateOf(await namespaceLines(container.id), container),
    });
  }

  async verify(): Promise<void> {
    const actual = await hostLines();
    this.#verifyLeases(actual);
    const expected = [...this.#base, ...[...this.containers].flatMap((one) => this.#linesOf(one))];
    compare('host', expected.map(withoutHashes), actual.map(withoutHashes));
  }

  /** The namespace of a running container. */
  async verifyInside(container: Container): Promise<void> {
    const template = this.#templates.get(container.list)?.inside ?? [];
    const expected = instantiate(template, container).map(withoutHashes);
    compare(
      `namespace of ${container.id}`,
      expected,
      (await namespaceLines(container.id)).map(withoutHashes),
    );
  }

  /** The namespace of a container after its DEL: of every third, because it costs eight processes. */
  async verifyEmpty(netns: string): Promise<void> {
    this.#deletions += 1;
    if (this.#deletions % 3 !== 0) return;
    compare(`namespace of deleted ${netns}`, this.#empty, await namespaceLines(netns));
  }

  #linesOf(container: Container): string[] {
    const lines = instantiate(this.#templates.get(container.list)?.host ?? [], container);
    return container.isLost ? lines.filter((line) => !/^(link|address|routes:)/.test(line)) : lines;
  }

  /** Derived from results alone, not from what an earlier ADD left: no address twice, each in one lease file, no other lease. */
  #verifyLeases(actual: Lines): void {
    const wanted = new Map<string, string>([['172.26.64.5', 'foreign']]);
    for (const { id, result } of this.containers) {
      for (const address of result === undefined ? [] : addressesOf(result)) {
        const name = canonical(address);
        const other = wanted.get(name);
        if (other !== undefined) throw new Violation(`address ${name} is given to ${other} and to ${id}`);
        wanted.set(name, id);
      }
    }
    const leases = actual
      .map((line) => /^file \/run\/cni\/nomad\/([0-9a-f.:]+) (".*")$/.exec(line))
      .flatMap((match) => (match === null ? [] : [`${match[1]} ${JSON.parse(match[2] ?? '""') as string}`]));
    const expected = [...wanted].map(([address, id]) => `${address} ${id}\r\neth0`);
    compare('leases', expected, leases);
  }
}

function canonical(address: string): string {
  const parsed = parseAddress(address);
  return parsed === undefined ? address : formatAddress(parsed);
}

function compare(what: string, expected: Lines, actual: Lines): void {
  const missing = added(actual, expected);
  const extra = added(expected, actual);
  if (missing.length + extra.length === 0) return;
  throw new Violation(
    `${what} differs from the model\n missing:\n${show(missing)}\n not expected:\n${show(extra)}`,
  );
}

const SHOWN = 12;

function show(lines: Lines): string {
  const more = lines.length > SHOWN ? [`... and ${lines.length - SHOWN} more`] : [];
  return [...lines.slice(0, SHOWN), ...more].map((line) => `   ${line}`).join('\n');
}
