import { createInterface } from 'node:readline';
import { readAsset } from '../../shared/assets.ts';
import { libc } from '../../shared/kernel/libc.ts';
import { writeAll } from '../../shared/kernel/stdio.ts';
import { type DashboardConfig, type ProbeConfig, probe, serveCountApi, serveDashboard } from './programs.ts';
import { serveDns, type DnsConfig } from './dns.ts';
import { prepareEnvoy, type EnvoyConfig } from './envoy/process.ts';
import { APP_UID } from './plan.ts';
import { serveSidecar, type Log, type SidecarConfig } from './sidecar.ts';

/** What one process of the example does. Its parent sends this as one line of JSON on stdin. */
export type ChildRole =
  | { readonly role: 'dns'; readonly config: DnsConfig }
  | { readonly role: 'sidecar'; readonly config: SidecarConfig }
  | { readonly role: 'envoy'; readonly config: EnvoyConfig }
  | { readonly role: 'count-api'; readonly config: { readonly port: number } }
  | { readonly role: 'dashboard'; readonly config: DashboardConfig }
  | { readonly role: 'probe'; readonly config: ProbeConfig };

export type ChildOrder = ChildRole & { readonly uid: number };

/** A child's message on stdout, one JSON object a line. */
export type ChildMessage =
  { readonly say: 'ready'; readonly result?: unknown } | { readonly say: 'log'; readonly line: string };

/**
 * One process of the example. It runs until stdin is closed, which the kernel also does when the parent dies:
 * no crash leaves a child behind.
 */
export async function countdashChild([role]: readonly string[] = []): Promise<never> {
  const task = orderOfTask(role, process.env);
  if (task !== undefined) return serveTask(task);
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const first = await lines.next();
  if (first.done === true) process.exit(1);
  const order = JSON.parse(first.value) as ChildOrder;
  const begin = prepare(order);
  dropPrivileges(order.uid);
  const result = await begin((line) => say({ say: 'log', line }));
  say({ say: 'ready', result });
  while ((await lines.next()).done !== true);
  // Its servers would keep it alive.
  process.exit(0);
}

/** The demo's own programs, as tasks of Nomad, get their settings in these variables; they run until they are killed. */
function orderOfTask(
  role: string | undefined,
  { PORT, COUNTING_SERVICE_URL: url = '', CONSUL_DNS: nameServer }: NodeJS.ProcessEnv,
): TaskOrder | undefined {
  if (PORT === undefined) return undefined;
  const port = Number(PORT);
  if (role === 'count-api') return { role, config: { port } };
  if (role !== 'dashboard') return undefined;
  return { role, config: { port, url, page: readAsset('examples/countdash/dashboard.html'), nameServer } };
}

type TaskOrder = Extract<ChildRole, { role: 'count-api' | 'dashboard' }>;

async function serveTask(order: TaskOrder): Promise<never> {
  dropPrivileges(APP_UID);
  await (order.role === 'dashboard' ? serveDashboard(order.config) : serveCountApi(order.config));
  return new Promise(() => undefined);
}

/** Does what needs the privileges that the child has at first. @returns the rest of its work */
function prepare(order: ChildOrder): (tell: Log) => Promise<unknown> {
  return order.role === 'envoy' ? prepareEnvoy(order.config) : (tell) => start(order, tell);
}

function start(order: Exclude<ChildOrder, { role: 'envoy' }>, tell: Log): Promise<unknown> {
  switch (order.role) {
    case 'dns':
      return serveDns(order.config, tell);
    case 'sidecar':
      return serveSidecar(order.config, tell);
    case 'count-api':
      return serveCountApi(order.config);
    case 'dashboard':
      return serveDashboard(order.config);
    case 'probe':
      return probe(order.config);
  }
}

/** Rules with an owner match need processes of different users. Load libc first: an unprivileged user may not be able to read its files. */
function dropPrivileges(uid: number): void {
  libc();
  process.setgroups?.([]);
  process.setgid?.(uid);
  process.setuid?.(uid);
}

function say(message: ChildMessage): void {
  writeAll(1, `${JSON.stringify(message)}\n`);
}
