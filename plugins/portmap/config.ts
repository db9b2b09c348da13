import * as z from 'zod/mini';
import { decodeSettings, type Configured } from '../../shared/config/decode.ts';
import { isChainName } from '../../shared/packetfilter/names.ts';
import { checkConditions, isIptablesSyntax } from './iptables/conditions.ts';
import {
  describeMapping,
  hostPortsOf,
  mappingsSchema,
  overlap,
  readMappings,
  type PortMapping,
} from './mapping.ts';

export type Backend = 'iptables' | 'nftables';

/** The portmap plugin's part of a network's configuration, checked, defaults filled in (docs/reference/plugins/portmap.md). */
export interface PortmapSettings {
  /** Undefined: what is implied decides, else the node's default. */
  readonly backend: Backend | undefined;
  /** The one backend that understands all of it, when something is in the language of one. */
  readonly implied: Backend | undefined;
  /** Masquerade what comes from this host itself and from the container (hairpin). */
  readonly snat: boolean;
  /** Masquerade everything. */
  readonly masqAll: boolean;
  /** Bit of the packet mark that asks for masquerading. */
  readonly markMasqBit: number;
  /** Somebody else's chain that marks packets for masquerading. */
  readonly externalSetMarkChain: string | undefined;
  readonly conditions: { readonly ipv4: readonly string[]; readonly ipv6: readonly string[] };
  /** What to do about a host port that another container holds. */
  readonly portConflict: 'refuse' | 'reference';
  /** Undefined when the runtime sent no list; an empty list says that there are none. */
  readonly mappings: readonly PortMapping[] | undefined;
}

export function configure(raw: Readonly<Record<string, unknown>>): Configured<PortmapSettings> {
  const decoded = decodeSettings(schema, raw);
  // DEL finds everything by name: of an invalid configuration it needs nothing.
  if ('problems' in decoded) return { problems: decoded.problems, partial: {} };
  const problems = contradictions(decoded.value);
  const settings = settingsOf(decoded.value);
  return problems.length === 0 ? { settings } : { problems, partial: settings };
}

const DEFAULT_MARK_BIT = 13;

const chainName = z
  .string()
  .check(
    z.refine(isChainName, { error: 'must be a chain name: 1 to 28 characters without blanks or quotes' }),
  );
const conditions = z.array(z.string().check(z.minLength(1)));

const schema = z.object({
  backend: z.optional(z.enum(['iptables', 'nftables', ''])),
  snat: z._default(z.boolean(), true),
  masqAll: z._default(z.boolean(), false),
  markMasqBit: z.optional(
    z
      .int()
      .check(
        z.gte(0, '"markMasqBit": MasqMarkBit must be between 0 and 31'),
        z.lte(31, '"markMasqBit": MasqMarkBit must be between 0 and 31'),
      ),
  ),
  externalSetMarkChain: z.optional(chainName),
  conditionsV4: z._default(conditions, []),
  conditionsV6: z._default(conditions, []),
  portConflict: z._default(z.enum(['refuse', 'reference']), 'refuse'),
  runtimeConfig: z.optional(z.object({ portMappings: z.optional(mappingsSchema) })),
});

type Decoded = z.output<typeof schema>;

function settingsOf(decoded: Decoded): PortmapSettings {
  const { backend, markMasqBit, conditionsV4, conditionsV6, runtimeConfig, ...rest } = decoded;
  const raw = runtimeConfig?.portMappings;
  return {
    ...rest,
    backend: backend === '' ? undefined : backend,
    implied: impliedBackends(decoded)[0]?.backend,
    markMasqBit: markMasqBit ?? DEFAULT_MARK_BIT,
    externalSetMarkChain: rest.externalSetMarkChain,
    conditions: { ipv4: conditionsV4, ipv6: conditionsV6 },
    mappings: raw === undefined ? undefined : readMappings(raw),
  };
}

function contradictions(decoded: Decoded): string[] {
  const { markMasqBit, externalSetMarkChain } = decoded;
  const both = markMasqBit !== undefined && externalSetMarkChain !== undefined;
  return [
    ...(both ? ['Cannot specify externalSetMarkChain and markMasqBit'] : []),
    ...(externalSetMarkChain !== undefined && decoded.backend === 'nftables'
      ? ['"externalSetMarkChain" names a chain of iptables, and the backend is nftables']
      : []),
    ...wrongSyntax(decoded),
    ...mixedLanguages(decoded),
    ...contradictingPorts(decoded),
  ];
}

/** Keys that only one backend understands. */
function impliedBackends(decoded: Decoded): { readonly key: string; readonly backend: Backend }[] {
  const { externalSetMarkChain, conditionsV4, conditionsV6 } = decoded;
  const spoken = Object.entries({ conditionsV4, conditionsV6 }).filter(([, words]) => words.length > 0);
  return [
    ...(externalSetMarkChain === undefined
      ? []
      : [{ key: 'externalSetMarkChain', backend: 'iptables' } as const]),
    ...spoken.map(([key, words]) => ({
      key,
      backend: isIptablesSyntax(words) ? ('iptables' as const) : ('nftables' as const),
    })),
  ];
}

/** No backend would understand all of it, and leaving a condition out would open a port wider than asked for. */
function mixedLanguages(decoded: Decoded): string[] {
  const [first, ...rest] = impliedBackends(decoded);
  const other = rest.find(({ backend }) => backend !== first?.backend);
  if (first === undefined || other === undefined || (decoded.backend ?? '') !== '') return [];
  return [
    `"${first.key}" is for the ${first.backend} backend and "${other.key}" for the ${other.backend} backend`,
  ];
}

/** A condition's first word tells its language: options of iptables begin with `-`, or with `!` before one. */
function wrongSyntax({ backend, conditionsV4, conditionsV6 }: Decoded): string[] {
  const given = { conditionsV4, conditionsV6 };
  return Object.entries(given).flatMap(([key, words]) => {
    if (words.length === 0) return [];
    const iptables = isIptablesSyntax(words);
    if (iptables && backend === 'nftables') {
      return [`nftables backend was requested but configuration contains iptables-specific options [${key}]`];
    }
    if (!iptables && backend === 'iptables') {
      return [`iptables backend was requested but configuration contains nftables-specific options [${key}]`];
    }
    return iptables ? checkConditions(key, words) : [];
  });
}

/** One port of the host cannot lead to two places, unless the reference's "first one wins" is asked for. */
function contradictingPorts({ portConflict, runtimeConfig }: Decoded): string[] {
  if (portConflict === 'reference') return [];
  const mappings = readMappings(runtimeConfig?.portMappings ?? []);
  return mappings.flatMap((one, at) => {
    const other = mappings.slice(0, at).find((earlier) => contradict(earlier, one));
    return other === undefined
      ? []
      : [`two port mappings claim the same host port: ${describeMapping(other)} and ${describeMapping(one)}`];
  });
}

function contradict(one: PortMapping, other: PortMapping): boolean {
  if (!one.families.some((family) => other.families.includes(family))) return false;
  const sameShift = one.containerPort - one.hostPort === other.containerPort - other.hostPort;
  return !sameShift && overlap(hostPortsOf(one), hostPortsOf(other));
}
