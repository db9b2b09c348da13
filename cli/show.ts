import type { OwnTable } from '../plugins/consul-tproxy/backend.ts';
import { withBackends } from '../plugins/consul-tproxy/backends.ts';
import { natOf, proxyInForce } from '../plugins/consul-tproxy/compare.ts';
import { describe } from '../plugins/consul-tproxy/describe.ts';
import {
  bypassWarning,
  listenersOn,
  processesBypassingProxy,
  processesHere,
} from '../plugins/consul-tproxy/processes.ts';
import { readOptions, UsageError } from '../shared/config/command-line.ts';
import { inNamespace } from '../shared/kernel/namespace.ts';
import { writeAll } from '../shared/kernel/stdio.ts';

const HELP = `usage: weft show --netns NAME|PATH

Prints the transparent-proxy rules in force in a network namespace, with counters, and what they do to its outbound, inbound
and DNS traffic; and names processes that run as the proxy's user and so bypass the mesh. Changes nothing.

  --netns NAME|PATH   a name stands for /var/run/netns/NAME; of a process: /proc/PID/ns/net
`;

const OPTIONS = { netns: { type: 'string' }, help: { type: 'boolean', short: 'h' } } as const;

/** `weft show`. @returns the exit code: 1 when the namespace has no such rules */
export function show(argv: readonly string[]): number {
  const { values } = readOptions(argv, OPTIONS);
  if (values.help === true) {
    writeAll(1, HELP);
    return 0;
  }
  const { netns = '' } = values;
  if (netns === '') throw new UsageError('--netns is missing');
  const found = inNamespace(netns.includes('/') ? netns : `/var/run/netns/${netns}`, sections);
  if (found.length === 0) {
    writeAll(2, `${netns} has no transparent-proxy rules: its traffic bypasses the proxy\n`);
    return 1;
  }
  writeAll(1, found.join('\n'));
  return 0;
}

/** One section for each back end that holds rules, then the processes; empty when none holds any. */
function sections(): string[] {
  const warn = (line: string): void => writeAll(2, `${line}\n`);
  return withBackends(undefined, warn, ({ chosen, others }) => {
    const present = [chosen, ...others].filter((backend) => backend.present());
    const tables = present.map((backend) => backend.read());
    const rules = present.map(
      (backend, at) => `Rules in ${backend.name}\n\n${backend.listing()}\n${paragraphs(tables[at] ?? [])}`,
    );
    return rules.length === 0 ? [] : [...rules, proxySection(tables.flat())];
  });
}

function paragraphs(tables: readonly OwnTable[]): string {
  const { outbound, inbound, dns } = describe(tables);
  return `Outbound: ${outbound}\n\nInbound: ${inbound}\n\nDNS: ${dns}\n`;
}

/** Exempt uids are the job's exclusions and the proxy's, which comes last. */
function proxySection(tables: readonly OwnTable[]): string {
  const { port, uids } = proxyInForce(natOf(tables));
  const uid = uids.at(-1);
  if (uid === undefined || port === undefined) return 'Proxy: none in the rules.\n';
  const processes = processesHere();
  const proxies = listenersOn([port], processes).map(
    ({ name, pid, uid: user }) => `${name} (pid ${pid}, uid ${user})`,
  );
  const listening =
    proxies.length === 0
      ? `nothing listens on port ${port} yet`
      : `${proxies.join(', ')} listens on port ${port}`;
  const bypassing = processesBypassingProxy(processes, { uid, ports: [port] });
  return `Proxy: ${listening}.\n${bypassing.length === 0 ? '' : `\nWarning: ${bypassWarning(bypassing)}\n`}`;
}
