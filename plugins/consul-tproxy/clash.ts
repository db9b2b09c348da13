import { listenersOn, type NamespaceProcess } from './processes.ts';
import type { UidRange } from './request.ts';

export interface ProxyIdentity {
  readonly uid: UidRange;
  /** Where the proxy listens. */
  readonly ports: readonly number[];
}

/**
 * Processes that run as the proxy's user and are not the proxy. The rules know the proxy by its uid alone, so these leave the mesh
 * without a trace (images whose program runs as uid 101, such as nginx, are the classic case).
 * The proxy is who listens on its ports, with its parents and children; while nobody does, who is called envoy.
 */
export function clashingProcesses(
  processes: readonly NamespaceProcess[],
  { uid, ports }: ProxyIdentity,
): NamespaceProcess[] {
  const suspects = processes.filter((one) => one.uid >= uid.first && one.uid <= uid.last);
  const proxies = suspects.length === 0 ? [] : listenersOn(ports, suspects);
  if (proxies.length === 0) return suspects.filter(({ name }) => !name.startsWith('envoy'));
  const family = new Set(
    proxies.flatMap(({ pid }) => [...lineOf(pid, suspects), ...descendantsOf(pid, suspects)]),
  );
  return suspects.filter(({ pid }) => !family.has(pid));
}

/** One line for the log and for `weft show`. */
export function clashText(clashing: readonly NamespaceProcess[]): string {
  const names = clashing.map(({ name, pid, uid }) => `${name} (pid ${pid}, uid ${uid})`).join(', ');
  return (
    `not in the mesh: ${names} runs as the proxy's user, so its connections are taken for the proxy's own; ` +
    'run it as another user, or give the proxy one of its own (transparent_proxy.uid)'
  );
}

function lineOf(pid: number, processes: readonly NamespaceProcess[]): number[] {
  const found = processes.find((one) => one.pid === pid);
  return found === undefined || found.parent === pid ? [] : [pid, ...lineOf(found.parent, processes)];
}

function descendantsOf(pid: number, processes: readonly NamespaceProcess[]): number[] {
  return processes
    .filter(({ parent }) => parent === pid)
    .flatMap((child) => [child.pid, ...descendantsOf(child.pid, processes)]);
}
