import { readFileSync } from 'node:fs';
import * as z from 'zod/mini';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { foldKeys } from '../../shared/config/fold.ts';
import { parseJson } from '../../shared/config/json.ts';
import { sentences } from '../../shared/config/messages.ts';
import { readCidrs, readDns } from './addresses.ts';
import { readPort } from './ports.ts';
import type { Findings, ProxyRequest } from './request.ts';
import { readUid } from './users.ts';

/** Texts of the host's files that names are looked up in; read only when a name is given. */
export interface NameFiles {
  readonly passwd: () => string;
  readonly services: () => string;
}

export const HOST_NAME_FILES: NameFiles = {
  passwd: () => readOrNothing('/etc/passwd'),
  services: () => readOrNothing('/etc/services'),
};

/**
 * CONSUL_IPTABLES_CONFIG's (or CONSUL_NFTABLES_CONFIG's) text as a {@link ProxyRequest}. It is Go's JSON of consul/sdk's
 * iptables.Config without tags: keys in any case, nulls, unknown keys.
 * @param key the argument's name, for the messages
 * @param notice told what was passed over
 * @throws CniError 6 when it is no JSON, 4 with every problem of its values in one message
 */
export function decodeRequest(
  key: string,
  json: string,
  names: NameFiles,
  notice: (line: string) => void,
): ProxyRequest {
  const problems: string[] = [];
  const findings: Findings = { problem: (sentence) => void problems.push(sentence), notice };
  const { fields, broken } = readFields(key, json, findings);
  const mistyped = problems.length;
  const request = readRequest(fields, broken, names, findings);
  if (problems.length === 0) return request;
  // The first words are consul-cni's, which people search for.
  const opening = mistyped > 0 ? `could not unmarshal CNI args: ${key}` : `invalid ${key} in CNI_ARGS`;
  throw new CniError(CniCode.InvalidEnvironment, `${opening}: ${problems.join('; ')}`);
}

type Fields = z.infer<typeof fieldsSchema>;

const strings = z.optional(z.array(z.string()));

/** consul/sdk iptables/iptables.go `Config`. NetNS is there too; CNI_NETNS counts, as upstream has it. */
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
  // Only ever null in JSON. z.null() would keep the key through folding; any value that survives it is wrong.
  IptablesProvider: z.optional(z.never()),
  NftablesProvider: z.optional(z.never()),
});

/** The fields of the right type, and the names of those that were not, which have been reported. */
function readFields(
  key: string,
  json: string,
  findings: Findings,
): { fields: Fields; broken: ReadonlySet<unknown> } {
  const folded = foldKeys(fieldsSchema, parseJson(json, `could not unmarshal CNI args: ${key}`) ?? {});
  const parsed = z.safeParse(fieldsSchema, folded);
  if (parsed.success) return { fields: parsed.data, broken: new Set() };
  for (const sentence of sentences(parsed.error.issues, folded)) findings.problem(sentence);
  const broken = new Set<unknown>(parsed.error.issues.map(({ path }) => path[0]));
  const whole = typeof folded === 'object' && folded !== null && !Array.isArray(folded);
  if (!whole) return { fields: {}, broken: new Set(Object.keys(fieldsSchema.def.shape)) };
  const sound = Object.entries(folded).filter(([name]) => !broken.has(name));
  return { fields: z.parse(fieldsSchema, Object.fromEntries(sound)), broken };
}

function readRequest(
  fields: Fields,
  broken: ReadonlySet<unknown>,
  names: NameFiles,
  findings: Findings,
): ProxyRequest {
  const uid = (key: string, text: string) => readUid(key, text, names.passwd, findings);
  const ports = (key: 'ExcludeInboundPorts' | 'ExcludeOutboundPorts') =>
    distinct((fields[key] ?? []).map((text) => readPort(key, text, names.services, findings)));
  const dns = readDns(fields.ConsulDNSIP ?? '', fields.ConsulDNSPort ?? 0, findings);
  const { ProxyUserID: user = '' } = fields;
  if (user === '' && !broken.has('ProxyUserID')) {
    findings.problem(
      "ProxyUserID is required to set up traffic redirection: Nomad takes it from the job's transparent_proxy.uid or the node's " +
        'meta connect.transparent_proxy.default_uid',
    );
  }
  return {
    dns,
    proxyUid: (user === '' ? undefined : uid('ProxyUserID', user)) ?? { first: 0, last: 0 },
    inboundPort: broken.has('ProxyInboundPort') ? 0 : readInboundPort(fields.ProxyInboundPort ?? 0, findings),
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

/** Entries that mean the same (Nomad passes "8080" and "08080" on as they are) become one rule; the first keeps its place. */
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

function readOrNothing(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    // A host without the file has none of its names; the reader says which file the name was looked up in.
    return '';
  }
}
