import type { NetworkList } from '../../conflist/network-list.ts';
import { checkNetwork, type Runtime } from '../../conflist/runtime.ts';
import type { Children } from './children.ts';
import { virtualName } from './dns-answers.ts';
import type { Addresses } from './example.ts';
import { aroundProxy } from './around-proxy.ts';
import { askInside } from './inside.ts';
import { expectEqual, expectMatch, fetch } from './looks.ts';
import { nomadAttachment } from './nomad.ts';
import { groupsOf, UPSTREAM_PORT, type Plan } from './plan.ts';
import type { ProbeAnswer, ProbeConfig } from './probe.ts';
import type { Progress } from './progress.ts';

export interface Parts {
  readonly plan: Plan;
  readonly addresses: Addresses;
  readonly list: NetworkList;
  readonly runtime: Runtime;
  readonly children: Children;
  readonly progress: Progress;
  readonly goOn: () => void;
}

export interface Assertion {
  readonly title: string;
  /** Throws, or resolves to what was seen. */
  readonly look: () => Promise<string> | string;
}

/** Goes through the example once and prints a line for each thing that must hold. Resolves to the number of those that do not. */
export async function assertExample(parts: Parts): Promise<number> {
  const { options } = parts.plan;
  const assertions = [
    ...networks(parts),
    ...(options.upstreams ? [] : names(parts)),
    ...page(parts),
    ...(options.deny ? refusal(parts) : counting(parts)),
    ...(options.upstreams ? [] : [...protection(parts), ...aroundProxy(parts)]),
  ];
  let failures = 0;
  for (const { title, look } of assertions) {
    parts.goOn();
    try {
      parts.progress.line(`     ok  ${title}: ${await look()}`);
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
    look: () => {
      checkNetwork(runtime, list, nomadAttachment(group, plan.dns));
      return 'every plugin finds its part';
    },
  }));
}

function names({ plan, children }: Parts): Assertion[] {
  const resolve = (name: string): Promise<ProbeAnswer> =>
    askInside(children, plan.dashboard.netns, { ask: 'resolve', name });
  const known = virtualName(plan.api.service);
  const unknown = virtualName('nobody');
  return [
    {
      title: `${known} in the dashboard's namespace`,
      look: async () => expectEqual((await resolve(known)).answer, plan.api.virtualAddress),
    },
    {
      title: `${unknown} has no address`,
      look: async () => expectEqual((await resolve(unknown)).error, 'ENOTFOUND'),
    },
  ];
}

function page({ plan, addresses }: Parts): Assertion[] {
  const { port } = plan.options;
  const doors = [
    { host: plan.hostAddress, port },
    { host: '127.0.0.1', port },
    ...(addresses.dashboardIpv6 === undefined
      ? []
      : [{ host: addresses.dashboardIpv6, port: plan.dashboard.appPort }]),
  ];
  return doors.map(({ host, port }) => ({
    title: `the page at ${host} port ${port}`,
    look: async () => expectMatch((await fetch(host, port, '/')).body, /<title>[^<]*<\/title>/),
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
    look: async () => {
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
      look: async () =>
        expectMatch((await askInside(children, plan.dashboard.netns, upstream)).answer, /"count":\d+/),
    },
  ];
}

function refusal({ plan }: Parts): Assertion[] {
  return [
    {
      title: 'the intention refuses the dashboard',
      look: async () => {
        const { status, body } = await fetch(plan.hostAddress, plan.options.port, '/count');
        expectEqual(String(status), '502');
        return expectMatch(body, /does not answer: (socket hang up|read ECONNRESET)/);
      },
    },
  ];
}

/** Nobody without a certificate of the mesh reaches count-api: neither at the program's own port nor at the sidecar's. */
function protection({ plan, addresses }: Parts): Assertion[] {
  const doors = [
    { host: addresses.api, port: plan.api.appPort },
    { host: plan.hostAddress, port: plan.api.proxyPort },
  ];
  return doors.map(({ host, port }) => ({
    title: `plain HTTP to count-api at ${host}:${port} is refused`,
    look: async () => {
      const answer = await fetch(host, port, '/').catch((error: unknown) => error as NodeJS.ErrnoException);
      if (!(answer instanceof Error)) throw new Error(`it answers ${answer.status}: ${answer.body}`);
      return expectMatch(answer.message, /socket hang up|ECONNRESET|Parse Error/);
    },
  }));
}
