import type { PortRange } from '../../shared/packetfilter/ruleset.ts';
import type { Findings } from './request.ts';

/**
 * One entry of ExcludeInboundPorts or ExcludeOutboundPorts: `8080`, a range `8000:8100` or `8000-8100` with either end open
 * (`1024:`), or a service name of the host's /etc/services.
 * Nomad sends "0" for a static port without `to` and "-1" for `to = -1`. Neither names a port, and the port meant cannot be known from
 * here, so both are told and passed over: 0 comes back as the range 0-0 (upstream writes a rule that matches nothing), -1 as undefined.
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
  // An end may be left open beside `:` only: `-5` is no range but a number that somebody got wrong.
  const [, first, last] =
    /^(\d+)()$/.exec(text) ?? /^(\d*):(\d*)$/.exec(text) ?? /^(\d+)-(\d+)$/.exec(text) ?? [];
  if (first === undefined || last === undefined || !/\d/.test(text)) {
    return readService(key, text, services, findings);
  }
  const isRange = !/^\d+$/.test(text);
  const port = { first: Number(first), last: isRange ? Number(last === '' ? 65535 : last) : Number(first) };
  return checkRange(key, text, port, findings);
}

function checkRange(key: string, text: string, port: PortRange, findings: Findings): PortRange | undefined {
  if (port.first > 65535 || port.last > 65535) {
    findings.problem(`${key}: a port is at most 65535, got ${JSON.stringify(text)}`);
    return undefined;
  }
  if (port.first > port.last) {
    findings.problem(`${key}: a range runs from the lower to the higher port, got ${JSON.stringify(text)}`);
    return undefined;
  }
  return port;
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
