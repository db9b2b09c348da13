import type { Assertion, Parts } from './assertions.ts';
import { askInside } from './inside.ts';
import { expectEqual, expectMatch, fetch } from './looks.ts';
import type { ProbeAnswer } from './probe.ts';

/**
 * With two families: IPv6 is no way around the proxy. Each refusal would be worth nothing if nobody listened there, so first the program is
 * seen to answer over IPv6; that the host reaches the dashboard's page over IPv6 is asserted with the page.
 */
export function aroundProxy({ plan, addresses, children }: Parts): Assertion[] {
  const { apiIpv6, dashboardIpv6 } = addresses;
  if (apiIpv6 === undefined || dashboardIpv6 === undefined) return [];
  const { api, dashboard } = plan;
  const call = (netns: string, host: string, port: number): Promise<ProbeAnswer> =>
    askInside(children, netns, { ask: 'http', host, port, path: '/health' });
  return [
    {
      title: `count-api listens on IPv6, too: ::1 port ${api.appPort} in its namespace`,
      look: async () => expectMatch((await call(api.netns, '::1', api.appPort)).answer, /"count":\d+/),
    },
    {
      title: `the dashboard's way around the proxy, IPv6 to count-api at ${apiIpv6} port ${api.appPort}`,
      look: async () => refused(await call(dashboard.netns, apiIpv6, api.appPort)),
    },
    {
      title: `count-api's way around the proxy, IPv6 to the open page at ${dashboardIpv6} port ${dashboard.appPort}`,
      look: async () => refused(await call(api.netns, dashboardIpv6, dashboard.appPort)),
    },
    {
      title: `this host's way around the proxy, IPv6 to count-api at ${apiIpv6} port ${api.appPort}`,
      look: async () => refused(await callFromHere(apiIpv6, api.appPort)),
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

/** A reset at once, so that programs turn to IPv4; not silence. */
function refused({ answer, error }: ProbeAnswer): string {
  if (answer !== undefined) throw new Error(`it answers: ${JSON.stringify(answer.slice(0, 200))}`);
  return expectEqual(error, 'ECONNREFUSED');
}
