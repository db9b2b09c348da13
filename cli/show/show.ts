import { writeFileSync } from 'node:fs';
import { inventory, type InventoryEntry } from '../../shared/attachments/inventory.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { readOptions, UsageError } from '../../shared/config/command-line.ts';
import { inNamespace } from '../../shared/kernel/namespace.ts';
import { writeAll } from '../../shared/kernel/stdio.ts';
import { viewOf } from '../attachments/view.ts';
import { painter } from '../terminal.ts';
import { packetPath, pathSchema } from './path.ts';
import { pathSvg } from './svg.ts';
import { pathText } from './path-text.ts';
import { transparentProxySections } from './tproxy.ts';
import { tracePackets } from './trace-packets.ts';

const HELP = `usage: weft show ALLOC|CONTAINER|NETNS|PORT [options]
       weft show --netns NAME|PATH

Draws the way of packets to and from an attachment: published port, DNAT, firewall, bridge, veth, interface, redirect, sidecar, and back
out; with the rules of each station and their counters. A station where something is missing is marked with the reason.
The beginning of an id is enough; PORT is a published port of the host. Changes nothing.

  --json              one JSON document
  --svg FILE          draw the same as a picture
  --trace             follow packets of the attachment for ten seconds with nft's trace: where each verdict was made.
                      Adds a table of its own, which the kernel removes when this process ends
  --netns NAME|PATH   only the transparent-proxy rules in force in this namespace, and what they do to its traffic;
                      a name stands for /var/run/netns/NAME, of a process: /proc/PID/ns/net

Exit status: 0 nothing is missing; 1 something is missing, or there is no such attachment; 2 wrong usage
`;

const OPTIONS = {
  netns: { type: 'string' },
  json: { type: 'boolean' },
  svg: { type: 'string' },
  trace: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

/** `weft show`. @returns the exit code */
export async function show(argv: readonly string[]): Promise<number> {
  const { values, positionals } = readOptions(argv, OPTIONS, true);
  if (values.help === true) {
    writeAll(1, HELP);
    return 0;
  }
  const [target, surplus] = positionals;
  if (surplus !== undefined) throw new UsageError(`unexpected argument "${surplus}"`);
  const [form, other] = (['netns', 'json', 'svg', 'trace'] as const).filter(
    (name) => values[name] !== undefined,
  );
  if (other !== undefined) throw new UsageError(`--${form} and --${other} exclude each other`);
  if (values.netns !== undefined) {
    if (target !== undefined) throw new UsageError(`unexpected argument "${target}" beside --netns`);
    return showNamespace(values.netns);
  }
  if (target === undefined) throw new UsageError('ALLOC, CONTAINER, NETNS or PORT is missing');
  const entry = found(target);
  if (values.trace === true) return tracePackets(viewOf(entry));
  const path = await packetPath(entry);
  if (values.json === true) writeAll(1, `${JSON.stringify(pathSchema.parse(path), null, 2)}\n`);
  else if (values.svg === undefined) writeAll(1, pathText(path, painter()));
  else writeFileSync(values.svg, pathSvg(path));
  const isComplete = [...path.inbound, ...path.outbound].every(({ missing }) => missing.length === 0);
  return isComplete && entry.state === 'running' ? 0 : 1;
}

function showNamespace(netns: string): number {
  if (netns === '') throw new UsageError('--netns is empty');
  const sections = inNamespace(
    netns.includes('/') ? netns : `/var/run/netns/${netns}`,
    transparentProxySections,
  );
  if (sections.length === 0) {
    writeAll(2, `${netns} has no transparent-proxy rules: its traffic bypasses the proxy\n`);
    return 1;
  }
  writeAll(1, sections.join('\n'));
  return 0;
}

/** @throws CniError when no attachment, or more than one, is meant */
function found(target: string): InventoryEntry {
  const entries = inventory();
  const isPort = /^\d{1,5}$/.test(target);
  const byPort = entries.filter((entry) => isPort && publishes(entry, Number(target)));
  const named = byPort.length > 0 ? byPort : entries.filter((entry) => isNamed(entry, target));
  const exact = named.filter(({ containerId, netns }) => containerId === target || netns === target);
  const candidates = exact.length > 0 ? exact : named;
  const [first, ...others] = candidates;
  if (first !== undefined && others.length === 0) return first;
  if (first === undefined) {
    throw new CniError(
      CniCode.UnknownContainer,
      `no attachment of this host is called "${target}", nor publishes such a port`,
      {
        details: 'list them: weft status; rules of a namespace without one: weft show --netns NAME',
      },
    );
  }
  const names = candidates.map(
    ({ network, containerId, ifname }) => `${containerId} (${ifname} on ${network})`,
  );
  throw new CniError(
    CniCode.UnknownContainer,
    `"${target}" means ${candidates.length} attachments: ${names.join(', ')}`,
  );
}

function publishes(entry: InventoryEntry, port: number): boolean {
  return viewOf(entry).ports.some(({ host, range }) => port >= host && port < host + range);
}

function isNamed({ containerId, netns }: InventoryEntry, target: string): boolean {
  return containerId.startsWith(target) || netns === target || netns.replace(/.*\//, '').startsWith(target);
}
