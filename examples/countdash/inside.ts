import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Children } from './children.ts';
import { virtualName } from './dns-answers.ts';
import type { Plan } from './plan.ts';
import type { ProbeAnswer, ProbeConfig } from './probe.ts';
import { NAMES } from './state.ts';

/** An ordinary user: programs of the groups, and the DNS, need no rights. */
export const APP_UID = 65534;

/** Asks a question from inside a namespace, as the groups' programs would. */
export async function askInside(
  children: Children,
  netns: string,
  config: ProbeConfig,
): Promise<ProbeAnswer> {
  const order = { role: 'probe', uid: APP_UID, config } as const;
  return (await children.ask({ name: 'probe', netns, order })) as ProbeAnswer;
}

/**
 * The virtual address of count-api as the dashboard will learn it. It is the one thing that passes the host's own INPUT rules, as
 * with a real Consul on the client: a host that drops it would only be seen as a counter that stands still.
 */
export async function resolveInside(
  { dashboard, api, dns, subnets }: Plan,
  children: Children,
): Promise<string> {
  const name = virtualName(api.service);
  const { answer, error } = await askInside(children, dashboard.netns, { ask: 'resolve', name });
  if (answer === api.virtualAddress) return `${name} is ${answer} in ${dashboard.netns}`;
  throw new CniError(CniCode.IoFailure, `${name} has no address in ${dashboard.netns}: ${answer ?? error}`, {
    details:
      `does this host's firewall drop what comes in by ${NAMES.bridge}? Let udp and tcp port ${dns?.port} in from ` +
      `${subnets[0]}, as for Consul on a Nomad client`,
  });
}
