import type { OwnTable } from '../plugins/consul-tproxy/backend.ts';
import { clashingProcesses, clashText } from '../plugins/consul-tproxy/clash.ts';
import { describe } from '../plugins/consul-tproxy/describe.ts';
import { standingProxy } from '../plugins/consul-tproxy/interception.ts';
import { withBackends } from '../plugins/consul-tproxy/place.ts';
import { listenersOn, processesHere } from '../plugins/consul-tproxy/processes.ts';
import { inNamespace } from '../shared/kernel/namespace.ts';
import { writeAll } from '../shared/kernel/stdio.ts';
import { readOptions, UsageError } from '../shared/config/command-line.ts';

const HELP = `usage: weft show --netns NAME|PATH

Prints the transparent-proxy rules in force in a network namespace, with counters, and what they do to its outbound, inbound
and DNS traffic; and names processes that run as the proxy's user and so leave the mesh. Changes nothing.

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
    writeAll(2, `${netns} has no transparent-proxy rules: its traffic goes around every proxy\n`);
    return 1;
  }
  writeAll(1, found.join('\n'));
  return 0;
}

/** A section for each backend that holds rules, then the processes; empty when no backend holds any. */
function sections(): string[] {
  const warn = (line: string): void => writeAll(2, `${line}\n`);
  return withBackends(undefined, warn, ({ chosen, others }) => {
    const present = [chosen, ...others].filter((backend) => backend.present());
    const tables = present.map((backend) => backend.read());
    const rules = present.map(
      (backend, at) => `Rules in ${backend.name}\n\n${backend.listing()}\n${paragraphs(tables[at] ?? [])}`,
    );
    return rules.length === 0 ? [] : [...rules, users(tables.flat())];
  });
}

function paragraphs(tables: readonly OwnTable[]): string {
  const { outbound, inbound, dns } = describe(tables);
  return `Outbound: ${outbound}\n\nInbound: ${inbound}\n\nDNS: ${dns}\n`;
}

/** The first uid that is let through is an exclusion of the job or the proxy's: the proxy's comes last. */
function users(tables: readonly OwnTable[]): string {
  const { port, uids } = standingProxy(
    tables.find(({ family, table }) => family === 'ipv4' && table === 'nat'),
  );
  const uid = uids.at(-1);
  if (uid === undefined || port === undefined) return 'Proxy: the rules name none.\n';
  const processes = processesHere();
  const proxies = listenersOn([port], processes).map(
    ({ name, pid, uid: user }) => `${name} (pid ${pid}, uid ${user})`,
  );
  const who =
    proxies.length === 0
      ? `nothing listens on port ${port} yet`
      : `${proxies.join(', ')} listens on port ${port}`;
  const clashing = clashingProcesses(processes, { uid, ports: [port] });
  return `Proxy: ${who}.\n${clashing.length === 0 ? '' : `\nWarning: ${clashText(clashing)}\n`}`;
}
