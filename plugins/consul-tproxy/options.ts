import * as z from 'zod/mini';
import { decodeConfig, decodeSettings, type Configured } from '../../shared/config/decode.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import { NODE_CONFIG_FILE, readNodeConfig } from '../../shared/config/node-config.ts';

/** What an operator chooses about the rules; what a job asks for is {@link ./request.ts}. docs/reference/plugins/consul-tproxy.md explains each. */
export interface TproxyOptions {
  /** `consul`: exactly consul-cni's rules. `full`: also all of 127.0.0.0/8, and TCP port 53 to resolvers that are not captured. */
  readonly exemptions: 'full' | 'consul';
  /** What becomes of TCP over IPv6 that would go around the proxy. */
  readonly ipv6: 'reject' | 'redirect' | 'bypass';
  /** What becomes of UDP that leaves the allocation, DNS apart. */
  readonly udp: 'bypass' | 'reject';
  /** Queries to which servers go to Consul: those sent to its own address, or all. */
  readonly dnsCapture: 'consul' | 'all';
  readonly check: 'structure' | 'strict' | 'off';
  /** Undefined: iptables where it is installed, else nftables. */
  readonly backend: 'iptables' | 'nftables' | undefined;
}

export const DEFAULT_OPTIONS: TproxyOptions = {
  exemptions: 'full',
  ipv6: 'reject',
  udp: 'bypass',
  dnsCapture: 'consul',
  check: 'structure',
  backend: undefined,
};

/** The options a network configuration sets itself; the rest is {@link withNodeDefaults}'s. */
export function configure(raw: unknown): Configured<Partial<TproxyOptions>> {
  const decoded = decodeSettings(optionsSchema, raw);
  if ('problems' in decoded) return { problems: decoded.problems, partial: present(decoded.partial) };
  return { settings: present(decoded.value) };
}

/**
 * Fills up with the node's defaults (`tproxy` of /etc/weft/weft.json, which Nomad's generated list needs because it can carry
 * none of these keys) and then with the plugin's own.
 * @throws CniError 5, 6 or 7 when that file is unreadable or wrong
 */
export function withNodeDefaults(own: Partial<TproxyOptions>): TproxyOptions {
  const node = readNodeConfig();
  const tproxy = present(
    decodeConfig(nodeOptionsSchema, node.tproxy ?? {}, `"tproxy" in ${NODE_CONFIG_FILE}`),
  );
  return { ...DEFAULT_OPTIONS, ...present({ backend: node.backend }), ...tproxy, ...own };
}

/** The same for CHECK: a mistake in the node's file is told, and never condemns an allocation that is well. */
export function withSoundNodeDefaults(
  own: Partial<TproxyOptions>,
  warn: (line: string) => void,
): TproxyOptions {
  try {
    return withNodeDefaults(own);
  } catch (thrown) {
    warn(`going by the built-in defaults: ${toCniError(thrown).message}`);
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

/** A list's configuration has keys for others; the node's file is ours alone, and a key that means nothing there is a mistake. */
const optionsSchema = z.object(OPTIONS);
const nodeOptionsSchema = z.strictObject(OPTIONS);

function present(options: z.infer<typeof optionsSchema>): Partial<TproxyOptions> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
