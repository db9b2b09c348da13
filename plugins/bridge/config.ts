import * as z from 'zod/mini';
import { decodeSettings, type Configured } from '../../shared/config/decode.ts';
import type { CniDns } from '../../shared/cni/types.ts';
import { mtuSchema } from '../../shared/config/node-config.ts';
import { MAC_RULE, stationMac } from './mac.ts';
import { expandTrunk, trunkSchema, vlanGatewayName } from './trunk.ts';

/** The bridge plugin's part of a network's configuration, checked, defaults filled in (docs/reference/plugins/bridge.md). */
export interface BridgeConfig {
  readonly bridge: string;
  /** Also true when only isDefaultGateway was given. */
  readonly isGateway: boolean;
  readonly isDefaultGateway: boolean;
  readonly forceAddress: boolean;
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
  /** From runtimeConfig, else from args.cni; CNI_ARGS comes after both. */
  readonly mac: string | undefined;
  /** '' is a layer-2 network: no addresses. */
  readonly ipamType: string;
  /** The whole configuration, for the address management in this process. */
  readonly raw: Readonly<Record<string, unknown>>;
  /** Takes the place of whatever the IPAM plugin says, as a whole. */
  readonly dns: CniDns | undefined;
}

export function configure(raw: Readonly<Record<string, unknown>>): Configured<BridgeConfig> {
  const decoded = decodeSettings(schema, raw);
  if ('problems' in decoded) {
    const { bridge, ipMasq, macspoofchk, ipam } = decoded.partial;
    const partial = {
      raw,
      ipamType: ipam?.type ?? '',
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

function settingsOf(decoded: Decoded, raw: BridgeConfig['raw']): BridgeConfig {
  const { ipam, args, runtimeConfig, dns, vlanTrunk, mtu, ...rest } = decoded;
  const mac = runtimeConfig?.mac || args?.cni?.mac || undefined;
  return {
    ...rest,
    isGateway: rest.isGateway || rest.isDefaultGateway,
    ipMasqBackend: rest.ipMasqBackend === '' ? undefined : rest.ipMasqBackend,
    mtu: mtu === 0 ? undefined : mtu,
    vlanTrunk: vlanTrunk === undefined ? undefined : expandTrunk(vlanTrunk),
    mac: mac === undefined ? undefined : stationMac(mac),
    ipamType: ipam?.type ?? '',
    raw,
    dns: ownDns(dns),
  };
}

const flag = z._default(z.boolean(), false);
/** IFNAMSIZ of linux/if.h less the closing zero; the characters are those that dev_valid_name of the kernel refuses, and `%`, which would make it number the name. */
const linkName = z.string().check(
  z.refine((name) => Buffer.byteLength(name) <= 15, { error: 'a link name has at most 15 bytes' }),
  z.regex(/^(?!\.{1,2}$)[^/:%\s]+$/u, {
    error: 'a link name is not empty, not "." or "..", and has no "/", ":", "%" or white space',
  }),
);
const macText = z.string().check(
  z.refine((text) => text === '' || stationMac(text) !== undefined, {
    error: `invalid MAC address: ${MAC_RULE}`,
  }),
);

const schema = z.object({
  bridge: z._default(linkName, 'cni0'),
  isGateway: flag,
  isDefaultGateway: flag,
  forceAddress: flag,
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
    found.push('cannot set hairpin mode and promiscuous mode at the same time');
  }
  if (config.disableContainerInterface && config.ipam?.type) {
    found.push('cannot use IPAM when DisableContainerInterface flag is set');
  }
  if ((config.isGateway || config.isDefaultGateway) && config.vlan !== 0) {
    const name = vlanGatewayName(config.bridge, config.vlan);
    if (Buffer.byteLength(name) > 15) {
      found.push(
        `bridge: the gateway of VLAN ${config.vlan} would be called "${name}", longer than 15 bytes`,
      );
    }
  }
  return found;
}

/** A list that is there counts even when it is empty; an empty domain alone says nothing. */
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
