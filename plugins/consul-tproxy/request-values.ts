import {
  familyBits,
  formatAddress,
  formatCidr,
  networkOf,
  parseAddress,
  parseCidr,
} from '../../shared/net/address.ts';
import type { Family, PortRange } from '../../shared/packetfilter/ruleset.ts';

/** Readers of the values in CONSUL_IPTABLES_CONFIG. Problems stop the ADD, all of them in one error; notices are warnings. */
export interface Findings {
  problem(sentence: string): void;
  notice(sentence: string): void;
}

export interface DnsRequest {
  /** Undefined when only a port was given: the allocation's loopback, of the family that the rules are for. */
  readonly address: { readonly family: Family; readonly text: string } | undefined;
  /** 0: the server answers on port 53, and queries to every server are captured. */
  readonly port: number;
}

/** ConsulDNSIP and ConsulDNSPort, of either family; consul-cni refuses IPv6. Nomad sends both or neither. */
export function readDns(ip: string, port: number, findings: Findings): DnsRequest | undefined {
  if (port < 0 || port > 65535) findings.problem(`ConsulDNSPort must be a port from 0 to 65535, got ${port}`);
  if (ip === '') return port === 0 ? undefined : { address: undefined, port };
  const address = parseAddress(ip);
  if (address === undefined) {
    findings.problem(
      `unable to parse consulDNSIP: ConsulDNSIP must be an IP address, got ${JSON.stringify(ip)}`,
    );
  } else if (address.value === 0n) {
    findings.problem(`ConsulDNSIP must be an address of a server, not the unspecified address, got ${ip}`);
  } else {
    return { address: { family: address.family, text: formatAddress(address) }, port };
  }
  return undefined;
}

/**
 * ExcludeOutboundCIDRs by family, host bits cleared; an address alone is a network of one. consul-cni fails half-way on the first IPv6
 * network, and asks DNS for host names from inside the allocation; here host names are a problem.
 */
export function readCidrs(
  key: string,
  texts: readonly string[],
  findings: Findings,
): Record<Family, readonly string[]> {
  const found = { ipv4: new Set<string>(), ipv6: new Set<string>() };
  for (const text of texts) {
    const cidr = text.includes('/') ? parseCidr(text) : asNetwork(text);
    if (cidr === undefined) {
      findings.problem(
        `${key}: each must be an address or a network such as 10.0.0.0/8 or fd00::/8, got ${JSON.stringify(text)}`,
      );
    } else {
      found[cidr.address.family].add(formatCidr(networkOf(cidr)));
    }
  }
  return { ipv4: [...found.ipv4], ipv6: [...found.ipv6] };
}

function asNetwork(text: string): ReturnType<typeof parseCidr> {
  const address = parseAddress(text);
  return address === undefined ? undefined : { address, prefix: familyBits(address.family) };
}

/**
 * One entry of ExcludeInboundPorts or ExcludeOutboundPorts: `8080`, a range `8000:8100` or `8000-8100`, with `:` open at either end
 * (`1024:`), or a service name of the host's /etc/services.
 * Nomad sends "0" for a static port without `to` and "-1" for `to = -1`. Neither names a port, so both are ignored with a warning: 0 becomes
 * the range 0-0 (consul-cni writes a rule that matches nothing), -1 undefined.
 */
export function readPort(
  key: string,
  text: string,
  services: () => string,
  findings: Findings,
): PortRange | undefined {
  if (/^(0+|-1)$/.test(text)) {
    findings.notice(
      `${key}: ignoring ${JSON.stringify(text)}, which is what Nomad sends for a static port ` +
        `${text === '-1' ? 'with `to = -1`' : 'without `to`'}; such a port is not excluded: set \`to\` to the port that the task listens on`,
    );
    return text === '-1' ? undefined : { first: 0, last: 0 };
  }
  // Only `:` may leave an end open: `-5` is a mistyped number, not a range.
  const [, first, last] =
    /^(\d+)()$/.exec(text) ?? /^(\d*):(\d*)$/.exec(text) ?? /^(\d+)-(\d+)$/.exec(text) ?? [];
  if (first === undefined || last === undefined || !/\d/.test(text)) {
    return readService(key, text, services, findings);
  }
  const isRange = !/^\d+$/.test(text);
  const port = { first: Number(first), last: isRange ? Number(last === '' ? 65535 : last) : Number(first) };
  if (port.first > 65535 || port.last > 65535) {
    findings.problem(`${key}: a port is at most 65535, got ${JSON.stringify(text)}`);
  } else if (port.first > port.last) {
    findings.problem(`${key}: a range runs from the lower to the higher port, got ${JSON.stringify(text)}`);
  } else {
    return port;
  }
  return undefined;
}

function readService(
  key: string,
  name: string,
  services: () => string,
  findings: Findings,
): PortRange | undefined {
  const port = tcpPortOf(name, services());
  if (port !== undefined) return { first: port, last: port };
  findings.problem(
    `${key}: ${JSON.stringify(name)} is neither a port, a range such as 8000-8100, nor a tcp service in the host's /etc/services; ` +
      'give the number',
  );
  return undefined;
}

/** services(5): `name port/protocol alias...`, comments after `#`. */
function tcpPortOf(name: string, services: string): number | undefined {
  if (name === '') return undefined;
  for (const line of services.split('\n')) {
    const [service, portAndProtocol, ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/);
    const port = /^(\d+)\/tcp$/.exec(portAndProtocol ?? '')?.[1];
    if (port !== undefined && (service === name || aliases.includes(name))) return Number(port);
  }
  return undefined;
}

export interface UidRange {
  readonly first: number;
  readonly last: number;
}

/** 4294967295 is (uid_t)-1, "no user": the kernel refuses to match it. */
const MAX_UID = 4294967294;

/**
 * One entry of ProxyUserID or ExcludeUIDs: a uid, a range `0-100`, or a user name of the host's /etc/passwd.
 * No other name service is asked: inside the allocation's namespace one that needs a network (LDAP, sssd) stalls for a minute.
 */
export function readUid(
  key: string,
  text: string,
  passwd: () => string,
  findings: Findings,
): UidRange | undefined {
  const numbers = /^(\d+)(?:-(\d+))?$/.exec(text);
  if (numbers === null) return readUserName(key, text, passwd, findings);
  const first = Number(numbers[1]);
  const last = Number(numbers[2] ?? numbers[1]);
  if (first > MAX_UID || last > MAX_UID) {
    findings.problem(`${key}: a user ID is at most ${MAX_UID}, got ${JSON.stringify(text)}`);
  } else if (first > last) {
    findings.problem(`${key}: a range runs from the lower to the higher ID, got ${JSON.stringify(text)}`);
  } else {
    return { first, last };
  }
  return undefined;
}

function readUserName(
  key: string,
  name: string,
  passwd: () => string,
  findings: Findings,
): UidRange | undefined {
  const uid = uidOf(name, passwd());
  if (uid !== undefined) return { first: uid, last: uid };
  findings.problem(
    `${key}: ${JSON.stringify(name)} is neither a user ID, a range such as 100-200, nor a user in the host's /etc/passwd ` +
      '(no other name service is asked); give the number',
  );
  return undefined;
}

/** passwd(5): name:password:uid:gid:comment:home:shell, one user per line; the first of a repeated name counts. */
function uidOf(name: string, passwd: string): number | undefined {
  if (name === '') return undefined;
  for (const line of passwd.split('\n')) {
    const [user, , uid] = line.split(':');
    if (user === name && uid !== undefined && /^\d+$/.test(uid) && Number(uid) <= MAX_UID) return Number(uid);
  }
  return undefined;
}
