import Counter from 'prom-client/lib/counter.js';
import Gauge from 'prom-client/lib/gauge.js';
import Histogram from 'prom-client/lib/histogram.js';
import Registry from 'prom-client/lib/registry.js';

/** A plugin call that the agent has served. */
export interface ServedCall {
  readonly plugin: string;
  /** CNI_COMMAND; `VERSION` for a call without one. */
  readonly verb: string;
  readonly result: 'ok' | 'error' | 'declined';
  readonly seconds: number;
}

/** Figures that are read when they are asked for, by metric; each value with its labels. */
export type Figures = Readonly<Record<FigureName, readonly Figure[]>>;

export interface Figure {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

type FigureName = keyof typeof FIGURES;

/** Totals are counters: they begin at 0 when the agent starts. */
const FIGURES = {
  weft_build_info: {
    help: '1; the labels name the version and the build of the agent.',
    labels: ['version', 'release'],
  },
  weft_attachments: {
    help: 'Attachments that cached results and leases of this host name, by state: running, gone or unknown.',
    labels: ['network', 'state'],
  },
  weft_port_mappings: {
    help: 'Host ports that running attachments publish.',
    labels: ['network', 'protocol'],
  },
  weft_addresses_used: { help: 'Addresses of a subnet that are leased.', labels: ['network', 'subnet'] },
  weft_addresses_free: {
    help: 'Addresses of a subnet that can still be leased.',
    labels: ['network', 'subnet'],
  },
  weft_leaked_containers: {
    help: 'Containers that are gone and have left something, at the last look of garbage collection.',
    labels: [],
  },
  weft_ruleset_generation: {
    help: 'Generation of the nf_tables ruleset: it grows with each change.',
    labels: [],
  },
  weft_collected_containers_total: {
    help: 'Containers whose remains garbage collection has removed.',
    labels: [],
  },
  weft_collection_failures_total: {
    help: 'Looks and removals of garbage collection that failed.',
    labels: [],
  },
  weft_repair_looks_total: { help: 'Comparisons of the host with what its attachments need.', labels: [] },
  weft_repairs_total: { help: 'Repairs of rules that another program had deleted.', labels: [] },
  weft_repaired_pieces_total: {
    help: 'Rules, chains and kernel parameters that repairs have restored.',
    labels: [],
  },
  weft_repair_pauses_total: {
    help: 'Pauses of repair, because another program deleted the rules again each time.',
    labels: [],
  },
  process_resident_memory_bytes: { help: 'Resident memory of the agent.', labels: [] },
  process_cpu_seconds_total: { help: 'CPU time of the agent, user and system.', labels: [] },
  process_start_time_seconds: { help: 'When the agent started, in seconds since 1970.', labels: [] },
} as const satisfies Readonly<Record<string, { help: string; labels: readonly string[] }>>;

/** Seconds: a call takes some milliseconds in the agent, and 10 s at most. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

export interface Metrics {
  readonly contentType: string;
  observe(call: ServedCall): void;
  /** All metrics in Prometheus' text format. */
  text(figures: Figures): Promise<string>;
}

export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const calls = new Histogram({
    name: 'weft_call_duration_seconds',
    help: 'Plugin calls that the agent has served: their time in the agent.',
    labelNames: ['plugin', 'verb', 'result'],
    buckets: BUCKETS,
    registers,
  });
  const figures = Object.entries(FIGURES).map(([name, { help, labels }]) => {
    const options = { name, help, labelNames: [...labels], registers };
    const metric = name.endsWith('_total') ? new Counter(options) : new Gauge(options);
    return { name: name as FigureName, metric };
  });
  return {
    contentType: registry.contentType,
    observe: ({ plugin, verb, result, seconds }) => calls.observe({ plugin, verb, result }, seconds),
    text: (current) => {
      for (const { name, metric } of figures) {
        metric.reset();
        for (const { labels, value } of current[name]) metric.inc({ ...labels }, value);
      }
      return registry.metrics();
    },
  };
}
