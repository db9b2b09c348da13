import type { OwnTable } from '../../plugins/consul-tproxy/backend.ts';
import { withBackends } from '../../plugins/consul-tproxy/backends.ts';
import { natOf, proxyInForce } from '../../plugins/consul-tproxy/differences.ts';
import { describe } from '../../plugins/consul-tproxy/describe.ts';
import {
  bypassWarning,
  listenersOn,
  processesBypassingProxy,
  processesHere,
} from '../../plugins/consul-tproxy/processes.ts';
import { writeAll } from '../../shared/kernel/stdio.ts';

/** Of the namespace that this thread is in: one section for each back end that holds rules, then the processes; empty when none holds any. */
export function transparentProxySections(): string[] {
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
