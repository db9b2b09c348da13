import { get } from 'node:http';
import type { NetworkList } from '../../conflist/network-list.ts';
import { type Runtime, checkNetwork } from '../../conflist/runtime.ts';
import { type Children, askInside } from './children.ts';
import { virtualName } from './dns.ts';
import type { Addresses } from './example.ts';
import { type EnvoyStatistics, readStatistics } from './envoy/statistics.ts';
import { type Group, type Plan, UPSTREAM_PORT, groupsOf, nomadAttachment } from './plan.ts';
import type { ProbeAnswer, ProbeConfig } from './programs.ts';
import type { Progress } from './progress.ts';

export interface Parts {
  readonly plan: Plan;
  readonly addresses: Addresses;
  readonly list: NetworkList;
  readonly runtime: Runtime;
  readonly children: Children;
  readonly progress: Progress;
  readonly throwIfStopped: () => void;
}

export interface Assertion {
  readonly title: string;
  /** Throws when it does not hold; resolves to what was observed. */
  readonly verify: () => Promise<string> | string;
}

/** Runs the example's assertions and prints one line for each. Resolves to the number of failures. */
export async function assertExample(parts: Parts): Promise<number> {
  const { options } = parts.plan;
  const assertions = [
    ...networks(parts),
    ...(options.upstreams ? [] : names(parts)),
    ...page(parts),
    ...(options.deny ? refusal(parts) : counting(parts)),
    ...(options.upstreams ? [] : [...protection(parts), ...bypassRefused(parts)]),
    ...(options.envoy === undefined ? [] : counters(parts)),
  ];
  let failures = 0;
  for (const { title, verify } of assertions) {
    parts.throwIfStopped();
    try {
      parts.progress.line(`     ok  ${title}: ${await verify()}`);
    } catch (thrown) {
      failures += 1;
      parts.progress.line(`   FAIL  ${title}: ${(thrown as Error).message}`);
    }
  }
  parts.progress.line(`         ${assertions.length - failures} of ${assertions.length} hold`);
  return failures;
}

function networks({ plan, list, runtime }: Parts): Assertion[] {
  return groupsOf(plan).map((group) => ({
    title: `CHECK of group "${group.name}"`,
    verify: () => {
      checkNetwork(runtime, list, nomadAttachment(group, plan.dns));
      return 'every plugin passes';
    },
  }));
}

function names({ plan, children }: Parts): Assertion[] {
  const resolve = (name: string): Promise<ProbeAnswer> =>
    askInside(children, plan.dashboard.netns, { ask: 'resolve', name });
  const known = virtualName(plan.api.service);
  const unknown = virtualName('no-such-service');
  return [
    {
      title: `${known} in the dashboard's namespace`,
      verify: async () => expectEqual((await resolve(known)).answer, plan.api.virtualAddress),
    },
    {
      title: `${unknown} has no address`,
      verify: async () => expectEqual((await resolve(unknown)).error, 'ENOTFOUND'),
    },
  ];
}

function page({ plan, addresses }: Parts): Assertion[] {
  const { port } = plan.options;
  const targets = [
    { host: plan.hostAddress, port },
    { host: '127.0.0.1', port },
    ...(addresses.dashboardIpv6 === undefined
      ? []
      : [{ host: addresses.dashboardIpv6, port: plan.dashboard.appPort }]),
  ];
  return targets.map(({ host, port }) => ({
    title: `the page at ${host} port ${port}`,
    verify: async () => expectMatch((await fetch(host, port, '/')).body, /<title>[^<]*<\/title>/),
  }));
}

function counting({ plan, children }: Parts): Assertion[] {
  const count = async (): Promise<number> => {
    const { status, body } = await fetch(plan.hostAddress, plan.options.port, '/count');
    if (status !== 200) throw new Error(`the dashboard says ${status}: ${body}`);
    return (JSON.parse(body) as { count: number }).count;
  };
  const rising: Assertion = {
    title: 'the counter rises',
    verify: async () => {
      const [first, second, third] = [await count(), await count(), await count()];
      if (first < second && second < third) return `${first}, ${second}, ${third}`;
      throw new Error(`it went ${first}, ${second}, ${third}`);
    },
  };
  if (!plan.options.upstreams) return [rising];
  const upstream: ProbeConfig = { ask: 'http', host: '127.0.0.1', port: UPSTREAM_PORT, path: '/' };
  return [
    rising,
    {
      title: `count-api on the dashboard's own port ${UPSTREAM_PORT}`,
      verify: async () =>
        expectMatch((await askInside(children, plan.dashboard.netns, upstream)).answer, /"count":\d+/),
    },
  ];
}

function refusal({ plan }: Parts): Assertion[] {
  return [
    {
      title: 'the intention refuses the dashboard',
      verify: async () => {
        const { status, body } = await fetch(plan.hostAddress, plan.options.port, '/count');
        expectEqual(String(status), '502');
        return expectMatch(body, /does not answer: (socket hang up|read ECONNRESET)/);
      },
    },
  ];
}

/** What both Envoys counted meanwhile; the dashboard was asked three times, or once where the intention denies. */
function counters(parts: Parts): Assertion[] {
  const { plan } = parts;
  const calls = plan.options.deny ? 1 : 3;
  const atLeast = (seen: number, wanted: number, what: string): string => {
    if (seen >= wanted) return `${what}: ${seen}`;
    throw new Error(`${what}: wanted at least ${wanted}, got ${seen}`);
  };
  return [
    {
      title: "Envoy's counters of count-dashboard",
      verify: async () => {
        const { callsOut, handshakesOut } = await statisticsOf(parts, plan.dashboard);
        return `${atLeast(callsOut, calls, 'calls')}, ${atLeast(handshakesOut, calls, 'TLS handshakes')}`;
      },
    },
    {
      title: "Envoy's counters of count-api",
      verify: async () => {
        const { handshakesIn, failedIn, allowed, denied } = await statisticsOf(parts, plan.api);
        const [decided, other] = plan.options.deny ? [denied, allowed] : [allowed, denied];
        expectEqual(String(other), '0');
        return [
          atLeast(handshakesIn, calls, 'TLS handshakes'),
          atLeast(decided, calls, plan.options.deny ? 'denied (RBAC)' : 'allowed (RBAC)'),
          ...(plan.options.upstreams ? [] : [atLeast(failedIn, 2, 'refused without a certificate')]),
        ].join(', ');
      },
    },
  ];
}

/** Counters of the Envoy of one group. */
export function statisticsOf({ children }: Pick<Parts, 'children'>, group: Group): Promise<EnvoyStatistics> {
  return readStatistics((config) => askInside(children, group.netns, config));
}

/** Without a certificate of the mesh, count-api is unreachable at its own port and at its sidecar's port. */
function protection({ plan, addresses }: Parts): Assertion[] {
  const targets = [
    { host: addresses.api, port: plan.api.appPort },
    { host: plan.hostAddress, port: plan.api.proxyPort },
  ];
  return targets.map(({ host, port }) => ({
    title: `plain HTTP to count-api at ${host}:${port} is refused`,
    verify: async () => {
      const answer = await fetch(host, port, '/').catch((error: unknown) => error as NodeJS.ErrnoException);
      if (!(answer instanceof Error)) throw new Error(`it answers ${answer.status}: ${answer.body}`);
      return expectMatch(answer.message, /socket hang up|ECONNRESET|Parse Error/);
    },
  }));
}

/**
 * Dual-stack only: IPv6 does not bypass the proxy. A refusal proves nothing when no program listens, so the first assertion shows that
 * count-api answers over IPv6; the page's assertion shows the same for the dashboard.
 */
function bypassRefused({ plan, addresses, children }: Parts): Assertion[] {
  const { apiIpv6, dashboardIpv6 } = addresses;
  if (apiIpv6 === undefined || dashboardIpv6 === undefined) return [];
  const { api, dashboard } = plan;
  const call = (netns: string, host: string, port: number): Promise<ProbeAnswer> =>
    askInside(children, netns, { ask: 'http', host, port, path: '/health' });
  return [
    {
      title: `count-api listens on IPv6: ::1 port ${api.appPort} in its namespace`,
      verify: async () => expectMatch((await call(api.netns, '::1', api.appPort)).answer, /"count":\d+/),
    },
    {
      title: `the dashboard cannot bypass the proxy: IPv6 to count-api at ${apiIpv6} port ${api.appPort}`,
      verify: async () => refused(await call(dashboard.netns, apiIpv6, api.appPort)),
    },
    {
      title: `count-api cannot bypass the proxy: IPv6 to the open page at ${dashboardIpv6} port ${dashboard.appPort}`,
      verify: async () => refused(await call(api.netns, dashboardIpv6, dashboard.appPort)),
    },
    {
      title: `the host cannot bypass the proxy: IPv6 to count-api at ${apiIpv6} port ${api.appPort}`,
      verify: async () => refused(await callFromHere(apiIpv6, api.appPort)),
    },
  ];
}

async function callFromHere(host: string, port: number): Promise<ProbeAnswer> {
  try {
    return { answer: (await fetch(host, port, '/health')).body };
  } catch (thrown) {
    const { code, message } = thrown as NodeJS.ErrnoException;
    return { error: code ?? message };
  }
}

/** An immediate reset, so that programs fall back to IPv4 without waiting. */
function refused({ answer, error }: ProbeAnswer): string {
  if (answer !== undefined) throw new Error(`it answers: ${JSON.stringify(answer.slice(0, 200))}`);
  return expectEqual(error, 'ECONNREFUSED');
}

const PATIENCE_MS = 6000;

/** One GET from the host; resolves for every status. */
export function fetch(host: string, port: number, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const request = get({ host, port, path, agent: false, timeout: PATIENCE_MS }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.once('error', reject);
      response.once('end', () =>
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }),
      );
    });
    request.once('timeout', () =>
      request.destroy(new Error(`no answer from ${host}:${port} within ${PATIENCE_MS / 1000} s`)),
    );
    request.once('error', reject);
  });
}

export function expectEqual(seen: string | undefined, wanted: string): string {
  if (seen === wanted) return wanted;
  throw new Error(`wanted ${wanted}, got ${seen ?? 'nothing'}`);
}

export function expectMatch(seen: string | undefined, wanted: RegExp): string {
  const [match] = wanted.exec(seen ?? '') ?? [];
  if (match !== undefined) return match;
  throw new Error(`wanted ${String(wanted)}, got ${JSON.stringify(seen?.slice(0, 200) ?? 'nothing')}`);
}
