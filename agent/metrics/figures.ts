import manifest from '../../package.json' with { type: 'json' };
import { publishedPorts } from '../../plugins/portmap/published.ts';
import { inventory, type InventoryEntry } from '../../shared/attachments/inventory.ts';
import { withCallScope } from '../../shared/kernel/call-scope.ts';
import { withCallDeadline } from '../../shared/kernel/deadline.ts';
import { rulesetGeneration } from '../../shared/packetfilter/nftables/change.ts';
import { poolsOf } from '../../shared/ipam/pools.ts';
import type { UpkeepCounts } from '../upkeep.ts';
import type { Figure, Figures } from './registry.ts';

/**
 * Reads the figures of this host and of the agent. A look at the host is used again for a hundred times as long as it took, so that scrapes take one
 * per cent of a processor at most.
 */
export class FigureReader {
  readonly #release: string;
  readonly #counts: () => UpkeepCounts;
  readonly #startedSeconds = Date.now() / 1000 - process.uptime();
  #ofHost: HostFigures | undefined;
  #validUntil = 0;

  constructor(release: string, counts: () => UpkeepCounts) {
    this.#release = release;
    this.#counts = counts;
  }

  read(): Figures {
    const { repairs, collections } = this.#counts();
    const { user, system } = process.cpuUsage();
    return {
      ...this.#host(),
      weft_build_info: [{ labels: { version: manifest.version, release: this.#release }, value: 1 }],
      weft_leaked_containers: single(collections?.leaks),
      weft_collected_containers_total: single(collections?.removed),
      weft_collection_failures_total: single(collections?.failures),
      weft_ruleset_generation: single(rulesetGeneration()),
      weft_repair_looks_total: single(repairs?.looks),
      weft_repairs_total: single(repairs?.repairs),
      weft_repaired_pieces_total: single(repairs?.pieces),
      weft_repair_pauses_total: single(repairs?.pauses),
      process_resident_memory_bytes: single(process.memoryUsage.rss()),
      process_cpu_seconds_total: single((user + system) / 1e6),
      process_start_time_seconds: single(this.#startedSeconds),
    };
  }

  #host(): HostFigures {
    const began = performance.now();
    if (this.#ofHost !== undefined && began < this.#validUntil) return this.#ofHost;
    const entries = withCallScope(() => withCallDeadline(() => inventory()));
    this.#ofHost = hostFigures(entries);
    this.#validUntil = performance.now() + REUSE_FACTOR * (performance.now() - began);
    return this.#ofHost;
  }
}

type HostFigures = Pick<
  Figures,
  'weft_attachments' | 'weft_port_mappings' | 'weft_addresses_used' | 'weft_addresses_free'
>;

/** What the attachments of this host add up to. */
export function hostFigures(entries: readonly InventoryEntry[]): HostFigures {
  const networks = [...Map.groupBy(entries, ({ network }) => network)];
  const pools = networks.flatMap(([network, own]) =>
    poolsOf(own).map((pool) => ({ ...pool, labels: { network, subnet: pool.subnet } })),
  );
  return {
    weft_attachments: networks.flatMap(([network, own]) =>
      STATES.map((state) => ({
        labels: { network, state },
        value: own.filter((entry) => entry.state === state).length,
      })),
    ),
    weft_port_mappings: networks.flatMap(([network, own]) => portFigures(network, own)),
    weft_addresses_used: pools.map(({ labels, used }) => ({ labels, value: used })),
    weft_addresses_free: pools.flatMap(({ labels, size, used }) =>
      // A subnet of IPv6 has more than a number can count.
      size === null ? [] : [{ labels, value: size - used }],
    ),
  };
}

function portFigures(network: string, entries: readonly InventoryEntry[]): Figure[] {
  const ports = entries
    .filter(({ state }) => state === 'running')
    .flatMap(({ plugins }) => publishedPorts(plugins));
  return [...Map.groupBy(ports, ({ protocol }) => protocol)].map(([protocol, own]) => ({
    labels: { network, protocol },
    value: own.reduce((sum, { range }) => sum + range, 0),
  }));
}

const STATES = ['running', 'gone', 'unknown'] as const;
const REUSE_FACTOR = 100;

/** 0 for a part of the agent that is off. */
function single(value = 0): Figure[] {
  return [{ labels: {}, value }];
}
