/**
 * A port mapping as Nomad sends it: go-cni's structure has no JSON names, so the keys come capitalised, where the
 * specification's are `hostPort`, ...; plugins match them in any case.
 */
export interface PortMapping {
  readonly HostPort: number;
  readonly ContainerPort: number;
  readonly Protocol: string;
  /** '' for all addresses of the host. */
  readonly HostIP: string;
}

const PROTOCOLS = ['tcp', 'udp', 'sctp'];
/** `[hostIP:]host[:container][/protocol]`, an IPv6 host address in brackets. */
const FORM =
  /^(?:(?:\[(?<v6>[0-9a-fA-F:.]+)\]|(?<v4>\d+\.\d+\.\d+\.\d+)):)?(?<host>\d+)(?::(?<container>\d+))?(?:\/(?<protocol>[a-z]+))?$/;

/**
 * `9002:9002/tcp`, `9002` or `192.0.2.1:80:8080/udp`. Without a protocol the port is mapped for tcp and for udp, as Nomad
 * maps every port of a job. Throws TypeError naming the rule.
 */
export function parsePortMapping(text: string): PortMapping[] {
  const { v4, v6, host, container, protocol } = FORM.exec(text)?.groups ?? {};
  if (host === undefined) {
    throw new TypeError(
      `a port mapping is [hostIP:]hostPort[:containerPort][/tcp|/udp|/sctp], got ${JSON.stringify(text)}`,
    );
  }
  if (protocol !== undefined && !PROTOCOLS.includes(protocol)) {
    throw new TypeError(
      `the protocol of a port mapping must be ${PROTOCOLS.join(', ')}, got "${protocol}" in ${JSON.stringify(text)}`,
    );
  }
  const ports = {
    HostPort: port(host, text),
    ContainerPort: port(container ?? host, text),
    HostIP: v4 ?? v6 ?? '',
  };
  return protocol === undefined ? bothProtocols(ports) : [mapping(ports, protocol)];
}

/** The two entries that Nomad sends for each port of a job. */
export function bothProtocols(ports: Omit<PortMapping, 'Protocol'>): PortMapping[] {
  return [mapping(ports, 'tcp'), mapping(ports, 'udp')];
}

function mapping(
  { HostPort, ContainerPort, HostIP }: Omit<PortMapping, 'Protocol'>,
  Protocol: string,
): PortMapping {
  return { HostPort, ContainerPort, Protocol, HostIP };
}

function port(digits: string, text: string): number {
  const number = Number(digits);
  if (number >= 1 && number <= 65535) return number;
  throw new TypeError(`a port must be 1 to 65535, got ${digits} in ${JSON.stringify(text)}`);
}
