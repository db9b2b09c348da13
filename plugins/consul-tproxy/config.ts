import * as z from 'zod/mini';
import { toCniError } from '../../shared/cni/errors.ts';
import { decodeConfig, decodeSettings, type Configured } from '../../shared/config/decode.ts';
import { NODE_CONFIG_FILE, readNodeConfig } from '../../shared/config/node-config.ts';

/** What the operator configures; what the job asks for is ProxyRequest. docs/reference/plugins/consul-tproxy.md explains each. */
export interface TproxyOptions {
  /** `consul`: exactly consul-cni's rules. `full`: also all of 127.0.0.0/8, and TCP port 53 to resolvers that are not captured. */
  readonly exemptions: 'full' | 'consul';
  /** TCP over IPv6, which would otherwise bypass the proxy. */
  readonly ipv6: 'reject' | 'redirect' | 'bypass';
  /** Outbound UDP except DNS. */
  readonly udp: 'bypass' | 'reject';
  /** Which queries are redirected to Consul: those to its own address, or all. */
  readonly dnsCapture: 'consul' | 'all';
  readonly check: 'structure' | 'strict' | 'off';
  /** Undefined: iptables where it is installed, else nftables. */
  readonly backend: 'iptables' | 'nftables' | undefined;
}

/** The options of one network configuration; {@link withNodeDefaults} adds the rest. */
export type OwnOptions = Partial<TproxyOptions>;

/** For a network configuration: keys it does not know belong to other plugins or to the runtime. */
export function configure(raw: unknown): Configured<OwnOptions> {
  const decoded = decodeSettings(optionsSchema, raw);
  if ('problems' in decoded) return { problems: decoded.problems, partial: present(decoded.partial) };
  return { settings: present(decoded.value) };
}

export const DEFAULT_OPTIONS: TproxyOptions = {
  exemptions: 'full',
  ipv6: 'reject',
  udp: 'bypass',
  dnsCapture: 'consul',
  check: 'structure',
  backend: undefined,
};

/**
 * Completes a network's options with the node's (`tproxy` and `backend` in /etc/weft/weft.json: Nomad's generated list cannot carry them)
 * and with the plugin's defaults.
 * @throws CniError 5, 6 or 7 when that file is unreadable or invalid
 */
export function withNodeDefaults(own: OwnOptions): TproxyOptions {
  const node = readNodeConfig();
  const tproxy = decodeConfig(nodeOptionsSchema, node.tproxy ?? {}, `"tproxy" in ${NODE_CONFIG_FILE}`);
  return { ...DEFAULT_OPTIONS, ...present({ backend: node.backend }), ...present(tproxy), ...own };
}

/** For CHECK: an invalid file is a warning, because it says nothing about the allocation. */
export function withValidNodeDefaults(own: OwnOptions, warn: (line: string) => void): TproxyOptions {
  try {
    return withNodeDefaults(own);
  } catch (thrown) {
    warn(`using built-in defaults: ${toCniError(thrown).message}`);
    return { ...DEFAULT_OPTIONS, ...own };
  }
}

const OPTIONS = {
  exemptions: z.optional(z.enum(['full', 'consul'])),
  ipv6: z.optional(z.enum(['reject', 'redirect', 'bypass'])),
  udp: z.optional(z.enum(['bypass', 'reject'])),
  dnsCapture: z.optional(z.enum(['consul', 'all'])),
  check: z.optional(z.enum(['structure', 'strict', 'off'])),
  backend: z.optional(z.enum(['iptables', 'nftables'])),
};

const optionsSchema = z.object(OPTIONS);
/** The node's file belongs to Weft alone: an unknown key there is a mistake. */
const nodeOptionsSchema = z.strictObject(OPTIONS);

function present(options: z.infer<typeof optionsSchema>): OwnOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
