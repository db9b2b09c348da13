import * as z from 'zod/mini';
import { configurationOfAdd } from '../../shared/attachments/cached-results.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import { decodeSettings, type Configured } from '../../shared/config/decode.ts';
import type { CniDns } from '../../shared/cni/results.ts';
import { mtuSchema } from '../../shared/config/node-config.ts';
import { formatMac, parseMac } from '../../shared/net/address.ts';

/** The plugin's settings, with defaults (docs/reference/plugins/bridge.md). */
export interface BridgeConfig {
  readonly bridge: string;
  /** Also true when only `isDefaultGateway` is set. */
  readonly isGateway: boolean;
  readonly isDefaultGateway: boolean;
  readonly forceAddress: boolean;
  /** Accepts an allocation subnet that contains a gateway or an uplink address of the host. */
  readonly allowUplinkOverlap: boolean;
  readonly ipMasq: boolean;
  readonly ipMasqBackend: 'iptables' | 'nftables' | undefined;
  /** Bytes; undefined: the node's default, else the kernel's. */
  readonly mtu: number | 'auto' | undefined;
  readonly hairpinMode: boolean;
  readonly promiscMode: boolean;
  /** Untagged VLAN of the port; 0: none. */
  readonly vlan: number;
  /** Tagged VLANs of the port, sorted, no repetition; undefined when the key is absent. */
  readonly vlanTrunk: readonly number[] | undefined;
  readonly preserveDefaultVlan: boolean;
  readonly macspoofchk: boolean;
  readonly enabledad: boolean;
  readonly disableContainerInterface: boolean;
  readonly portIsolation: boolean;
  /** From runtimeConfig, else from args.cni; CNI_ARGS is used when both have none. */
  readonly mac: string | undefined;
  /** '' for a layer-2 network: no addresses. */
  readonly ipamType: string;
  /** The whole configuration, for host-local in this process. */
  readonly raw: Readonly<Record<string, unknown>>;
  /** Replaces the DNS settings of the IPAM result as a whole. */
  readonly dns: CniDns | undefined;
}

export function configure(raw: Readonly<Record<string, unknown>>): Configured<BridgeConfig> {
  const decoded = decodeSettings(schema, raw);
  if ('problems' in decoded) {
    const { bridge, ipMasq, macspoofchk, ipam } = decoded.partial;
    const ipamType = ipam?.type ?? (raw['ipam'] === undefined ? '' : undefined);
    const partial = {
      raw,
      ...(ipamType !== undefined && { ipamType }),
      ...(bridge !== undefined && { bridge }),
      ...(ipMasq !== undefined && { ipMasq }),
      ...(macspoofchk !== undefined && { macspoofchk }),
    };
    return { problems: decoded.problems, partial };
  }
  const problems = contradictions(decoded.value);
  const settings = settingsOf(decoded.value, raw);
  return problems.length === 0 ? { settings } : { problems, partial: settings };
}

/**
 * The settings of the attachment's last ADD, from the configuration that libcni caches with the result.
 * @param type the plugin's `type` in the list
 * @returns undefined where the runtime caches none, or the plugin of the list is ambiguous
 */
export function settingsOfAdd(
  attachment: Pick<Invocation<unknown>, 'network' | 'containerId' | 'ifname'>,
  type: unknown,
): BridgeConfig | undefined {
  const raw = configurationOfAdd(attachment, type);
  const configured = raw === undefined ? undefined : configure(raw);
  return configured !== undefined && 'settings' in configured ? configured.settings : undefined;
}

function settingsOf(decoded: Decoded, raw: BridgeConfig['raw']): BridgeConfig {
  const { ipam, args, runtimeConfig, dns, vlanTrunk, mtu, ...rest } = decoded;
  const mac = runtimeConfig?.mac || args?.cni?.mac || undefined;
  return {
    ...rest,
    isGateway: rest.isGateway || rest.isDefaultGateway,
    ipMasqBackend: rest.ipMasqBackend === '' ? undefined : rest.ipMasqBackend,
    mtu: mtu === 0 ? undefined : mtu,
    vlanTrunk: vlanTrunk === undefined ? undefined : expandTrunk(vlanTrunk),
    mac: mac === undefined ? undefined : unicastMac(mac),
    ipamType: ipam?.type ?? '',
    raw,
    dns: ownDns(dns),
  };
}

/** For messages. */
export const MAC_RULE = 'must be six bytes in hexadecimal, not multicast and not all zero';

/** A unicast MAC address in canonical text; undefined for other text, a multicast address and all zeros. */
export function unicastMac(text: string): string | undefined {
  const bytes = parseMac(text);
  const isMulticast = ((bytes?.[0] ?? 0) & 1) === 1;
  if (bytes === undefined || isMulticast || bytes.every((byte) => byte === 0)) return undefined;
  return formatMac(bytes);
}

/** Name of the host-side gateway interface of a VLAN, as in the reference; `configure` checks that it is short enough for a link. */
export function vlanGatewayName(bridge: string, vlan: number): string {
  return `${bridge}.${vlan}`;
}

const flag = z._default(z.boolean(), false);
/** Length: IFNAMSIZ of linux/if.h without the NUL. Characters: those of dev_valid_name in the kernel, `%`, which the kernel replaces by a number, and control characters, as in CNI_IFNAME. */
const linkName = z.string().check(
  z.refine((name) => Buffer.byteLength(name) <= 15, { error: 'a link name has at most 15 bytes' }),
  z.regex(/^(?!\.{1,2}$)[^/:%\s\p{Cc}]+$/u, {
    error:
      'a link name is not empty, not "." or "..", and has no "/", ":", "%", white space or control character',
  }),
);
const macText = z.string().check(
  z.refine((text) => text === '' || unicastMac(text) !== undefined, {
    error: `invalid MAC address: ${MAC_RULE}`,
  }),
);

/** One entry of vlanTrunk: one VLAN by `id`, or `minID` to `maxID` inclusive; an entry may have both forms. */
const trunkSchema = z.array(
  z
    .object({
      id: z.optional(vlanId('incorrect trunk id parameter')),
      minID: z.optional(vlanId('incorrect trunk minID parameter')),
      maxID: z.optional(vlanId('incorrect trunk maxID parameter')),
    })
    .check(
      z.refine((entry) => entry.minID !== undefined || entry.maxID === undefined, {
        error: 'minID and maxID should be configured simultaneously, minID is missing',
      }),
      z.refine((entry) => entry.maxID !== undefined || entry.minID === undefined, {
        error: 'minID and maxID should be configured simultaneously, maxID is missing',
      }),
      z.refine(({ minID, maxID }) => minID === undefined || maxID === undefined || minID <= maxID, {
        error: 'minID is greater than maxID in trunk parameter',
      }),
    ),
);

const schema = z.object({
  bridge: z._default(linkName, 'cni0'),
  isGateway: flag,
  isDefaultGateway: flag,
  forceAddress: flag,
  allowUplinkOverlap: flag,
  ipMasq: flag,
  ipMasqBackend: z.optional(
    z.enum(['', 'iptables', 'nftables'], {
      error: ({ input }) => `unknown ipmasq backend ${JSON.stringify(input)}`,
    }),
  ),
  mtu: z.optional(z.union([z.literal(0), mtuSchema])),
  hairpinMode: flag,
  promiscMode: flag,
  vlan: z._default(
    z.int().check(
      z.refine((id) => id >= 0 && id <= 4094, {
        error: ({ input }) => `invalid VLAN ID ${String(input)} (must be between 0 and 4094)`,
      }),
    ),
    0,
  ),
  vlanTrunk: z.optional(trunkSchema),
  preserveDefaultVlan: flag,
  macspoofchk: flag,
  enabledad: flag,
  disableContainerInterface: flag,
  portIsolation: flag,
  ipam: z.optional(z.object({ type: z.optional(z.string()) })),
  args: z.optional(z.object({ cni: z.optional(z.object({ mac: z.optional(macText) })) })),
  runtimeConfig: z.optional(z.object({ mac: z.optional(macText) })),
  dns: z.optional(
    z.object({
      nameservers: z.optional(z.array(z.string())),
      domain: z.optional(z.string()),
      search: z.optional(z.array(z.string())),
      options: z.optional(z.array(z.string())),
    }),
  ),
});

type Decoded = z.output<typeof schema>;

function contradictions(config: Decoded): string[] {
  const found: string[] = [];
  if (config.hairpinMode && config.promiscMode) {
    found.push(
      'cannot set hairpin mode and promiscuous mode at the same time ("hairpinMode", "promiscMode")',
    );
  }
  if (config.disableContainerInterface && config.ipam?.type) {
    found.push(
      'cannot use IPAM when DisableContainerInterface flag is set ("ipam.type", "disableContainerInterface")',
    );
  }
  if ((config.isGateway || config.isDefaultGateway) && config.vlan !== 0) {
    const name = vlanGatewayName(config.bridge, config.vlan);
    if (Buffer.byteLength(name) > 15) {
      found.push(
        `"vlan": the gateway of VLAN ${config.vlan} would be called "${name}", longer than 15 bytes ("bridge")`,
      );
    }
  }
  return found;
}

/** An empty list replaces that of IPAM; an empty domain does not. */
function ownDns(dns: Decoded['dns']): CniDns | undefined {
  if (dns === undefined) return undefined;
  const { nameservers, domain, search, options } = dns;
  const own: CniDns = {
    ...(nameservers && { nameservers }),
    ...(domain && { domain }),
    ...(search && { search }),
    ...(options && { options }),
  };
  return Object.keys(own).length === 0 ? undefined : own;
}

/** Every VLAN of the trunk once, in ascending order. */
function expandTrunk(trunk: z.output<typeof trunkSchema>): number[] {
  const ids = trunk.flatMap(({ id, minID, maxID }) => [
    ...(id === undefined ? [] : [id]),
    ...(minID === undefined || maxID === undefined ? [] : range(minID, maxID)),
  ]);
  return [...new Set(ids)].sort((one, other) => one - other);
}

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, at) => first + at);
}

function vlanId(error: string): z.ZodMiniNumber {
  return z.int().check(z.gte(1, { error }), z.lte(4094, { error }));
}
