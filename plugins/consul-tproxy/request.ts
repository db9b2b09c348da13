import * as z from 'zod/mini';
import { readArgs } from '../../shared/cni/environment.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { foldKeys } from '../../shared/config/decode.ts';
import { parseJson } from '../../shared/config/json.ts';
import { joinProblems, sentences } from '../../shared/config/sentences.ts';
import { readRegularFile } from '../../shared/kernel/files.ts';
import type { Family, PortRange } from '../../shared/packetfilter/ruleset.ts';
import {
  readCidrs,
  readDns,
  readPort,
  readUid,
  type DnsRequest,
  type Findings,
  type UidRange,
} from './request-values.ts';

export type { DnsRequest, UidRange } from './request-values.ts';

/** What the job asks for: CONSUL_IPTABLES_CONFIG, validated, every value canonical and sorted by family. */
export interface ProxyRequest {
  /** Envoy's uid as the allocation's user namespace has it; a range when the job gives one. */
  readonly proxyUid: UidRange;
  readonly inboundPort: number;
  readonly outboundPort: number;
  /** Undefined when the job or the node has no Consul DNS. */
  readonly dns: DnsRequest | undefined;
  /** In the order given, without duplicates. `{first: 0, last: 0}` is what Nomad sends for a port without `to`; it matches nothing. */
  readonly excludeInboundPorts: readonly PortRange[];
  readonly excludeOutboundPorts: readonly PortRange[];
  /** CIDRs without host bits, in their shortest text. */
  readonly excludeOutboundCidrs: Readonly<Record<Family, readonly string[]>>;
  readonly excludeUids: readonly UidRange[];
}

/** consul-cni reads the first; its announced nftables version reads the second, which has the same fields. The newer one wins. */
const CONFIG_KEYS = ['CONSUL_NFTABLES_CONFIG', 'CONSUL_IPTABLES_CONFIG'] as const;
const KUBERNETES_KEYS = ['K8S_POD_NAME', 'K8S_POD_NAMESPACE', 'K8S_POD_INFRA_CONTAINER_ID'] as const;

/**
 * The request in CNI_ARGS.
 * @throws CniError 4 or 6, naming every problem
 */
export function readProxyRequest(args: string | undefined, warn: (line: string) => void): ProxyRequest {
  const found = readArgs(args, [...CONFIG_KEYS, ...KUBERNETES_KEYS]);
  const given = CONFIG_KEYS.filter((key) => (found.get(key) ?? '') !== '');
  const [key] = given;
  if (key === undefined) throw noRequest(found);
  const texts = given.map((name) => found.get(name) ?? '');
  if (new Set(texts).size > 1) warn(`${given.join(' and ')} differ; using ${key}`);
  return decodeRequest(key, texts[0] ?? '', HOST_NAME_FILES, warn);
}

function noRequest(args: ReadonlyMap<string, string>): CniError {
  if (KUBERNETES_KEYS.slice(0, 2).every((key) => (args.get(key) ?? '') !== '')) {
    return new CniError(
      CniCode.InvalidEnvironment,
      'Kubernetes is not supported: CNI_ARGS has K8S_POD_NAME but no CONSUL_IPTABLES_CONFIG',
      { details: "use Consul's own consul-cni on Kubernetes" },
    );
  }
  return new CniError(
    CniCode.InvalidEnvironment,
    // consul-cni's phrase.
    'not running in a pod, namespace and pod should have values: CNI_ARGS has no CONSUL_IPTABLES_CONFIG',
    {
      details:
        'the plugin was not called by Nomad for a group with transparent_proxy; leave it out of network lists for other groups',
    },
  );
}

/** Texts of the host's files with names of users and services; read only when a name is given. */
export interface NameFiles {
  readonly passwd: () => string;
  readonly services: () => string;
}

export const HOST_NAME_FILES: NameFiles = {
  passwd: () => readIfPossible('/etc/passwd'),
  services: () => readIfPossible('/etc/services'),
};

/**
 * CONSUL_IPTABLES_CONFIG's (or CONSUL_NFTABLES_CONFIG's) text as a {@link ProxyRequest}. It is the Go JSON of consul/sdk's
 * iptables.Config, which has no tags: keys in any case, nulls, unknown keys.
 * @param key of CNI_ARGS, for messages
 * @throws CniError 6 for invalid JSON, 4 with every problem of its values in one message
 */
export function decodeRequest(
  key: string,
  json: string,
  names: NameFiles,
  warn: (line: string) => void,
): ProxyRequest {
  const problems: string[] = [];
  const findings: Findings = { problem: (sentence) => void problems.push(sentence), notice: warn };
  const { fields, invalid } = readFields(key, json, findings);
  const mistyped = problems.length;
  const request = readRequest(fields, invalid, names, findings);
  if (problems.length === 0) return request;
  // The first phrase is consul-cni's.
  const opening = mistyped > 0 ? `could not unmarshal CNI args: ${key}` : `invalid ${key} in CNI_ARGS`;
  throw new CniError(CniCode.InvalidEnvironment, `${opening}: ${joinProblems(problems)}`);
}

type Fields = z.infer<typeof fieldsSchema>;

const strings = z.optional(z.array(z.string()));

/** consul/sdk iptables/iptables.go `Config`. Its NetNS is ignored: CNI_NETNS counts, as in consul-cni. */
const fieldsSchema = z.object({
  ConsulDNSIP: z.optional(z.string()),
  ConsulDNSPort: z.optional(z.int()),
  ProxyUserID: z.optional(z.string()),
  ProxyInboundPort: z.optional(z.int()),
  ProxyOutboundPort: z.optional(z.int()),
  ExcludeInboundPorts: strings,
  ExcludeOutboundPorts: strings,
  ExcludeOutboundCIDRs: strings,
  ExcludeUIDs: strings,
  // Always null in valid JSON, and folding removes nulls; any other value is an error.
  IptablesProvider: z.optional(z.never()),
  NftablesProvider: z.optional(z.never()),
});

/** The fields that have the right type, and the names of those that do not; these are reported here. */
function readFields(
  key: string,
  json: string,
  findings: Findings,
): { fields: Fields; invalid: ReadonlySet<unknown> } {
  const folded = foldKeys(fieldsSchema, parseJson(json, `could not unmarshal CNI args: ${key}`) ?? {});
  const parsed = z.safeParse(fieldsSchema, folded);
  if (parsed.success) return { fields: parsed.data, invalid: new Set() };
  for (const sentence of sentences(parsed.error.issues, folded)) findings.problem(sentence);
  if (typeof folded !== 'object' || folded === null || Array.isArray(folded)) {
    return { fields: {}, invalid: new Set(Object.keys(fieldsSchema.def.shape)) };
  }
  const invalid = new Set<unknown>(parsed.error.issues.map(({ path }) => path[0]));
  const valid = Object.entries(folded).filter(([name]) => !invalid.has(name));
  return { fields: z.parse(fieldsSchema, Object.fromEntries(valid)), invalid };
}

function readRequest(
  fields: Fields,
  invalid: ReadonlySet<unknown>,
  names: NameFiles,
  findings: Findings,
): ProxyRequest {
  const uid = (key: string, text: string) => readUid(key, text, names.passwd, findings);
  const ports = (key: 'ExcludeInboundPorts' | 'ExcludeOutboundPorts') =>
    distinct((fields[key] ?? []).map((text) => readPort(key, text, names.services, findings)));
  const dns = readDns(fields.ConsulDNSIP ?? '', fields.ConsulDNSPort ?? 0, findings);
  const { ProxyUserID: user = '' } = fields;
  if (user === '' && !invalid.has('ProxyUserID')) {
    findings.problem(
      "ProxyUserID is required to set up traffic redirection: Nomad takes it from the job's transparent_proxy.uid or the node's " +
        'meta connect.transparent_proxy.default_uid',
    );
  }
  return {
    dns,
    proxyUid: (user === '' ? undefined : uid('ProxyUserID', user)) ?? { first: 0, last: 0 },
    inboundPort: invalid.has('ProxyInboundPort')
      ? 0
      : readInboundPort(fields.ProxyInboundPort ?? 0, findings),
    outboundPort: readOutboundPort(fields.ProxyOutboundPort ?? 0, findings),
    excludeInboundPorts: ports('ExcludeInboundPorts'),
    excludeOutboundPorts: ports('ExcludeOutboundPorts'),
    excludeOutboundCidrs: readCidrs('ExcludeOutboundCIDRs', fields.ExcludeOutboundCIDRs ?? [], findings),
    excludeUids: distinct((fields.ExcludeUIDs ?? []).map((text) => uid('ExcludeUIDs', text))),
  };
}

/** Nomad looks the port up under the label `connect-proxy-<service>` and sends 0 when the sidecar uses another. */
function readInboundPort(port: number, findings: Findings): number {
  if (port === 0) {
    findings.problem(
      'ProxyInboundPort is required to set up traffic redirection: Nomad sends 0 when sidecar_service names a port label of its own; ' +
        'remove `port` from the sidecar_service block, so that the sidecar listens on the port connect-proxy-<service>',
    );
  } else if (!isPort(port)) {
    findings.problem(`ProxyInboundPort must be a port from 1 to 65535, got ${port}`);
  }
  return port;
}

/** consul/sdk DefaultTProxyOutboundPort */
const DEFAULT_OUTBOUND_PORT = 15001;

function readOutboundPort(port: number, findings: Findings): number {
  if (port === 0) return DEFAULT_OUTBOUND_PORT;
  if (!isPort(port)) findings.problem(`ProxyOutboundPort must be a port from 1 to 65535, got ${port}`);
  return port;
}

function isPort(port: number): boolean {
  return port >= 1 && port <= 65535;
}

/** Nomad passes "8080" and "08080" on as they are: entries with the same meaning become one rule, at the place of the first. */
function distinct<Range extends { first: number; last: number }>(
  ranges: readonly (Range | undefined)[],
): Range[] {
  const found = new Map<string, Range>();
  for (const range of ranges) {
    if (range !== undefined && !found.has(`${range.first}-${range.last}`))
      found.set(`${range.first}-${range.last}`, range);
  }
  return [...found.values()];
}

/** With the users of a large directory exported into it. */
const LONGEST_FILE_BYTES = 64 * 1024 * 1024;

function readIfPossible(file: string): string {
  try {
    return readRegularFile(file, { limitBytes: LONGEST_FILE_BYTES }) ?? '';
  } catch {
    // A name that cannot be looked up is unknown, and the error names the file.
    return '';
  }
}
