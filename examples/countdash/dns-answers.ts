import dnsPacket, { type Answer, type Packet } from 'dns-packet';

/** Names that the example's DNS answers itself, lower case without a closing dot, and their addresses. */
export type Zone = ReadonlyMap<string, string>;

/** Header codes of RFC 1035 section 4.1.1. */
export const Rcode = {
  NoError: 0,
  FormatError: 1,
  ServerFailure: 2,
  NameError: 3,
  NotImplemented: 4,
} as const;
const OPCODE_MASK = 0x7800;
const DOMAIN = 'consul';
/** Consul answers with 0, so that a changed address is seen at once. */
const TTL = 0;

/**
 * The answer for a query within the mesh's domain; 'forward' for every other name, which is for the recursors.
 * A message that is no query at all gives undefined: it gets no answer.
 */
export function answer(query: Buffer, zone: Zone): Buffer | 'forward' | undefined {
  if (query.length < 12 || isResponse(query)) return undefined;
  if ((query.readUInt16BE(2) & OPCODE_MASK) !== 0) return failure(query, Rcode.NotImplemented);
  const packet = decode(query);
  const question = packet?.questions?.length === 1 ? packet.questions[0] : undefined;
  if (packet === undefined || question === undefined) return failure(query, Rcode.FormatError);
  const name = question.name.toLowerCase();
  if (name !== DOMAIN && !name.endsWith(`.${DOMAIN}`)) return 'forward';
  const address = zone.get(name);
  const known = address !== undefined || name === DOMAIN;
  const answers =
    address !== undefined && ['A', 'ANY'].includes(question.type) ? [record(question.name, address)] : [];
  return dnsPacket.encode({
    ...header(packet, dnsPacket.AUTHORITATIVE_ANSWER | (known ? Rcode.NoError : Rcode.NameError)),
    answers,
    // Without answers, the zone's SOA tells a resolver that the name or the type does not exist (RFC 2308).
    authorities: answers.length > 0 ? [] : [startOfAuthority()],
  });
}

/** A failed query answered, as far as its bytes can be read: its id always comes back. */
export function failure(query: Buffer, rcode: number): Buffer {
  const packet = decode(query) ?? { id: query.readUInt16BE(0) };
  return dnsPacket.encode(header(packet, rcode));
}

/** `<service>.virtual.consul`, the name under which a service of the mesh is called. */
export function virtualName(service: string): string {
  return `${service}.virtual.${DOMAIN}`;
}

function header(query: Packet, flags: number): Packet {
  const wanted = query.flag_rd === true ? dnsPacket.RECURSION_DESIRED : 0;
  return {
    type: 'response',
    ...(query.id === undefined ? {} : { id: query.id }),
    flags: flags | wanted | dnsPacket.RECURSION_AVAILABLE,
    questions: query.questions ?? [],
  };
}

function record(name: string, address: string): Answer {
  return { type: 'A', name, ttl: TTL, class: 'IN', data: address };
}

function startOfAuthority(): Answer {
  const data = {
    mname: `ns.${DOMAIN}`,
    rname: `hostmaster.${DOMAIN}`,
    serial: 1,
    refresh: 3600,
    retry: 600,
    expire: 86400,
    minimum: TTL,
  };
  return { type: 'SOA', name: DOMAIN, ttl: TTL, class: 'IN', data };
}

function decode(query: Buffer): Packet | undefined {
  try {
    return dnsPacket.decode(query);
  } catch {
    return undefined;
  }
}

function isResponse(message: Buffer): boolean {
  return (message.readUInt8(2) & 0x80) !== 0;
}
