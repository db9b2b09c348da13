import * as z from 'zod/mini';
import { decodeConfig } from './decode.ts';
import { CniCode, CniError, toCniError } from '../cni/errors.ts';
import { readRegularFile } from '../kernel/files.ts';
import { formatCidr, networkOf, parseAddress, parseCidr, sameAddress, type Cidr } from '../net/address.ts';

/**
 * Defaults of this node, for what a generated network list cannot carry (Nomad's has no mtu and no backend).
 * What a network's own configuration says wins. Described for operators in docs/reference/configuration.md.
 */
export interface NodeConfig {
  /** Of new bridges and both ends of every pair, in bytes; `auto`: that of the device that the default route leaves by. */
  readonly mtu?: number | 'auto' | undefined;
  /** Packet filter for networks that do not name one. */
  readonly backend?: 'iptables' | 'nftables' | undefined;
  /** Whether the node agent restores rules that other programs delete, or only logs what is missing; default `on`. */
  readonly repair?: 'on' | 'log' | 'off' | undefined;
  /** Whether the node agent removes what attachments that are gone have left behind, or only logs it; default `log`. */
  readonly gc?: 'on' | 'log' | 'off' | undefined;
  /** Where the node agent serves metrics for Prometheus, as `address:port`; undefined: nowhere. */
  readonly metrics?: string | undefined;
  /** Options of consul-tproxy, which validates them (plugins/consul-tproxy/options.ts). */
  readonly tproxy?: Readonly<Record<string, unknown>> | undefined;
  /** Which allocations of this host cannot reach each other directly: those of different networks, or all. Published ports stay reachable. */
  readonly isolation?: Isolation | undefined;
  /** Destinations outside of the host that allocations cannot open connections to, as prefixes; `allow` are exceptions. */
  readonly egress?: { readonly deny: readonly string[]; readonly allow: readonly string[] } | undefined;
}

export type Isolation = 'none' | 'network' | 'allocation';

export const NODE_CONFIG_FILE = '/etc/weft/weft.json';

/**
 * @returns {} when the file does not exist
 * @throws CniError 5 when it cannot be read, 6 when it is no JSON object, 7 naming every problem: this file is ours, so
 *   a key that means nothing is a mistake (a network's configuration may carry keys for others, this one may not)
 */
export function readNodeConfig(file: string = NODE_CONFIG_FILE): NodeConfig {
  const text = readRegularFile(file);
  if (text === undefined) return {};
  const raw = parseObject(text, file);
  const unknown = Object.keys(raw).filter((key) => !KNOWN.includes(key));
  if (unknown.length > 0) throw unknownKeys(unknown, file);
  return decodeConfig(nodeConfigSchema, raw, file);
}

/** For CHECK, which an invalid file must not fail: built-in defaults and a warning. */
export function validNodeConfig(warn: (line: string) => void): NodeConfig {
  try {
    return readNodeConfig();
  } catch (thrown) {
    warn(`using built-in defaults: ${toCniError(thrown).message}`);
    return {};
  }
}

/** What the kernel takes for veth and bridge: ETH_MIN_MTU to ETH_MAX_MTU of linux/if_ether.h. */
export const mtuSchema = z.union([z.int().check(z.gte(68), z.lte(65_535)), z.literal('auto')]);

/** Made canonical, so that a rule for it equals the rule as the kernel returns it. */
const prefixSchema = z.pipe(
  z.string().check(
    z.refine((text) => cidrOf(text) !== undefined, {
      error: 'must be an address or a prefix, such as 169.254.169.254 or fd00:ec2::/32',
    }),
    z.refine((text) => hasNoHostBits(cidrOf(text)), { error: 'must be a prefix without host bits' }),
  ),
  z.transform((text) => canonicalPrefix(text)),
);

const nodeConfigSchema = z.object({
  mtu: z.optional(mtuSchema),
  backend: z.optional(z.enum(['iptables', 'nftables'])),
  repair: z.optional(z.enum(['on', 'log', 'off'])),
  gc: z.optional(z.enum(['on', 'log', 'off'])),
  metrics: z.optional(
    z.string().check(
      z.refine((text) => isListenAddress(text), {
        error: 'must be an IP address and a port, such as 127.0.0.1:9477 or [::1]:9477',
      }),
    ),
  ),
  tproxy: z.optional(z.record(z.string(), z.unknown())),
  isolation: z.optional(z.enum(['none', 'network', 'allocation'])),
  egress: z.optional(
    z.strictObject({
      deny: z._default(z.array(prefixSchema), []),
      allow: z._default(z.array(prefixSchema), []),
    }),
  ),
});

/** `127.0.0.1:9477`, `[::1]:9477` */
export function parseListenAddress(text: string): { host: string; port: number } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|([^:]*)):(\d+)$/.exec(text) ?? [];
  return { host: bracketed ?? plain ?? '', port: Number(port) };
}

function isListenAddress(text: string): boolean {
  const { host, port } = parseListenAddress(text);
  return parseAddress(host) !== undefined && port >= 1 && port <= 65_535;
}

const KNOWN = Object.keys(nodeConfigSchema.def.shape);

function cidrOf(text: string): Cidr | undefined {
  return parseCidr(text) ?? parseCidr(`${text}/${text.includes(':') ? 128 : 32}`);
}

function hasNoHostBits(cidr: Cidr | undefined): boolean {
  return cidr === undefined || sameAddress(cidr.address, networkOf(cidr).address);
}

function canonicalPrefix(text: string): string {
  const cidr = cidrOf(text);
  return cidr === undefined ? text : formatCidr(cidr);
}

function parseObject(text: string, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (thrown) {
    throw notAnObject(file, thrown instanceof Error ? thrown.message : String(thrown), thrown);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw notAnObject(
      file,
      `found ${value === null ? 'null' : Array.isArray(value) ? 'a list' : `a ${typeof value}`}`,
    );
  }
  return value as Record<string, unknown>;
}

function notAnObject(file: string, problem: string, cause?: unknown): CniError {
  return new CniError(CniCode.DecodingFailure, `${file} must hold one JSON object: ${problem}`, {
    details: 'for example {"mtu": "auto"}',
    ...(cause === undefined ? {} : { cause }),
  });
}

function unknownKeys(unknown: readonly string[], file: string): CniError {
  const names = unknown.map((key) => JSON.stringify(key)).join(', ');
  return new CniError(CniCode.InvalidNetworkConfig, `${file}: unknown key ${names}`, {
    details: `known keys: ${KNOWN.join(', ')}`,
  });
}
