import * as z from 'zod/mini';
import { decodeSettings, type Configured } from '../../shared/config/decode.ts';
import type { NodeConfig } from '../../shared/config/node-config.ts';
import { isChainName } from '../../shared/packetfilter/names.ts';
import { chooseBackend } from '../../shared/packetfilter/select.ts';
import { checkConditions, isIptablesSyntax } from './iptables/conditions.ts';
import { mappingsSchema, readMappings, type PortMapping } from './mapping.ts';

export type Backend = 'iptables' | 'nftables';

/** The configuration of the plugin, validated, with defaults (docs/reference/plugins/portmap.md). */
export interface PortmapSettings {
  /** Undefined: `implied` decides, then the node's default. */
  readonly backend: Backend | undefined;
  /** The only back end that understands `externalSetMarkChain` or the conditions; undefined if both do. */
  readonly implied: Backend | undefined;
  /** Masquerade connections from 127.0.0.1 and from the container's own subnet (hairpin). */
  readonly snat: boolean;
  /** Masquerade every published connection. */
  readonly masqAll: boolean;
  /** Bit (0 to 31) of the packet mark that selects packets for masquerading. */
  readonly markMasqBit: number;
  /** Another program's chain that marks packets for masquerading. */
  readonly externalSetMarkChain: string | undefined;
  readonly conditions: { readonly ipv4: readonly string[]; readonly ipv6: readonly string[] };
  /** What ADD does when another container publishes the port. */
  readonly portConflict: 'refuse' | 'reference';
  /** Undefined when the runtime sent no list. */
  readonly mappings: readonly PortMapping[] | undefined;
}

/** Without an explicit back end, a setting that only one of them understands chooses it, else the node's default. */
export function backendName({ backend, implied }: PortmapSettings, node?: NodeConfig): Backend {
  return chooseBackend(backend ?? implied, node);
}

export function configure(raw: Readonly<Record<string, unknown>>): Configured<PortmapSettings> {
  const decoded = decodeSettings(schema, raw);
  // DEL and GC find rules by name and need no settings.
  if ('problems' in decoded) return { problems: decoded.problems, partial: {} };
  const problems = contradictions(decoded.value);
  if (problems.length > 0) return { problems, partial: {} };
  return { settings: settingsOf(decoded.value) };
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

type Raw = z.output<typeof schema>;

function settingsOf(raw: Raw): PortmapSettings {
  const { backend, markMasqBit, externalSetMarkChain, conditionsV4, conditionsV6, runtimeConfig } = raw;
  const mappings = runtimeConfig?.portMappings;
  return {
    backend: backend === '' ? undefined : backend,
    implied: impliedBackends(raw)[0]?.backend,
    snat: raw.snat,
    masqAll: raw.masqAll,
    markMasqBit: markMasqBit ?? DEFAULT_MARK_BIT,
    externalSetMarkChain,
    conditions: { ipv4: conditionsV4, ipv6: conditionsV6 },
    portConflict: raw.portConflict,
    mappings: mappings === undefined ? undefined : readMappings(mappings),
  };
}

function contradictions(raw: Raw): string[] {
  const { markMasqBit, externalSetMarkChain, backend } = raw;
  const both = markMasqBit !== undefined && externalSetMarkChain !== undefined;
  return [
    ...(both ? ['Cannot specify externalSetMarkChain and markMasqBit'] : []),
    ...(externalSetMarkChain !== undefined && backend === 'nftables'
      ? ['"externalSetMarkChain" names an iptables chain, but "backend" is "nftables"']
      : []),
    ...conditionProblems(raw),
    ...mixedBackends(raw),
  ];
}

/** The keys that only one back end understands. */
function impliedBackends(raw: Raw): { readonly key: string; readonly backend: Backend }[] {
  const { externalSetMarkChain, conditionsV4, conditionsV6 } = raw;
  const given = Object.entries({ conditionsV4, conditionsV6 }).filter(([, args]) => args.length > 0);
  return [
    ...(externalSetMarkChain === undefined
      ? []
      : [{ key: 'externalSetMarkChain', backend: 'iptables' } as const]),
    ...given.map(([key, args]) => ({
      key,
      backend: isIptablesSyntax(args) ? ('iptables' as const) : ('nftables' as const),
    })),
  ];
}

/** No back end understands all of it, and ignoring a condition would publish a port more widely than configured. */
function mixedBackends(raw: Raw): string[] {
  const [first, ...rest] = impliedBackends(raw);
  const other = rest.find(({ backend }) => backend !== first?.backend);
  if (first === undefined || other === undefined || (raw.backend ?? '') !== '') return [];
  return [
    `"${first.key}" is for the ${first.backend} backend and "${other.key}" for the ${other.backend} backend`,
  ];
}

/** The first argument shows the syntax: options of iptables begin with `-`, or with `!` before one. */
function conditionProblems({ backend, conditionsV4, conditionsV6 }: Raw): string[] {
  const given = { conditionsV4, conditionsV6 };
  return Object.entries(given).flatMap(([key, args]) => {
    if (args.length === 0) return [];
    const iptables = isIptablesSyntax(args);
    if (iptables && backend === 'nftables') {
      return [`nftables backend was requested but configuration contains iptables-specific options [${key}]`];
    }
    if (!iptables && backend === 'iptables') {
      return [`iptables backend was requested but configuration contains nftables-specific options [${key}]`];
    }
    return iptables ? checkConditions(key, args) : [];
  });
}
