import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Backend, OwnTable } from './backend.ts';
import { clashingProcesses, clashText } from './clash.ts';
import { standingDns } from './dns-plan.ts';
import { differences } from './differences.ts';
import { gapsIn, interceptionRules, standingProxy, type Gap } from './interception.ts';
import type { TproxyOptions } from './options.ts';
import type { Backends } from './place.ts';
import type { TablePlan } from './plan.ts';
import { listenersOn, processesHere } from './processes.ts';
import type { ProxyRequest } from './request.ts';

export interface CheckInput {
  readonly request: ProxyRequest;
  readonly options: TproxyOptions;
  readonly plan: (request: ProxyRequest) => readonly TablePlan[];
  readonly warn: (line: string) => void;
}

/**
 * Whether the allocation is still in the mesh; for use inside its namespace, changes nothing. Nomad destroys and rebuilds the network of
 * a running allocation when this throws, so `structure` throws only when interception itself is gone, and tells the rest as warnings:
 * the arguments are worked out anew when Nomad's agent starts, from what the node knows by then (no DNS while Consul is still down,
 * another default uid or port, other addresses), while the rules and the proxy are those of the day the allocation started.
 */
export function checkRules(backends: Backends, input: CheckInput): void {
  const { backend, tables } = whereRulesStand(backends, input);
  const request = withStandingDns(input, tables);
  const strict = input.options.check === 'strict';
  const gaps = gapsIn(natOf(tables), interceptionRules(request));
  const lost = strict ? gaps : gaps.filter(({ key }) => key.of !== 'proxy' || !servesAnotherProxy(tables));
  const drift = [
    ...differences(input.plan(request), tables).map(({ text }) => text),
    ...alsoIn(backends, backend),
  ];
  if (lost.length > 0 || (strict && drift.length > 0)) throw broken(backend, lost, strict ? drift : []);
  for (const text of drift) input.warn(`differs from what the job asks for now: ${text}`);
  const clashing = clashingProcesses(processesHere(), {
    uid: request.proxyUid,
    ports: [request.inboundPort, request.outboundPort],
  });
  if (clashing.length > 0) input.warn(clashText(clashing));
}

interface Standing {
  readonly backend: Backend;
  readonly tables: readonly OwnTable[];
}

/** An operator who changes the backend does not break the allocations that are running: their rules count where they stand. */
function whereRulesStand({ chosen, others }: Backends, { request, warn }: CheckInput): Standing {
  const standing = { backend: chosen, tables: chosen.read() };
  const whole = (tables: readonly OwnTable[]): boolean =>
    gapsIn(natOf(tables), interceptionRules(request)).length === 0;
  if (whole(standing.tables)) return standing;
  const other = others
    .map((backend) => ({ backend, tables: backend.read() }))
    .find(({ tables }) => whole(tables));
  if (other === undefined) return standing;
  warn(
    `the rules stand in ${other.backend.name}, not in ${chosen.name} as configured now; the next ADD moves them`,
  );
  return other;
}

/** Rules of ours in two backends: of two that redirect to different ports the older wins, and nobody can tell which that is. */
function alsoIn({ chosen, others }: Backends, standing: Backend): string[] {
  return [chosen, ...others]
    .filter((backend) => backend !== standing && backend.present())
    .map(({ name }) => `rules of the proxy stand in ${name}, too; the next ADD removes them`);
}

/** Arguments without DNS say that the node does not know Consul's address right now, not that the allocation shall have none. */
function withStandingDns({ request, warn }: CheckInput, tables: readonly OwnTable[]): ProxyRequest {
  const dns = request.dns === undefined ? standingDns(tables) : undefined;
  if (dns === undefined) return request;
  warn(
    `CNI_ARGS carry no Consul DNS, but the rules hand queries to ${dns.address?.text ?? 'loopback'} port ${dns.port || 53}; left as it is`,
  );
  return { ...request, dns };
}

/**
 * Whether a proxy is at work behind the standing rules: it listens where they send outbound connections, as a user whom they let
 * through. Then another uid or port in the arguments is news from the node's configuration, and no damage.
 */
function servesAnotherProxy(tables: readonly OwnTable[]): boolean {
  const { port, uids } = standingProxy(natOf(tables));
  if (port === undefined) return false;
  return listenersOn([port], processesHere()).some(({ uid }) =>
    uids.some(({ first, last }) => uid >= first && uid <= last),
  );
}

function natOf(tables: readonly OwnTable[]): OwnTable | undefined {
  return tables.find(({ family, table }) => family === 'ipv4' && table === 'nat');
}

function broken({ name }: Backend, lost: readonly Gap[], drift: readonly string[]): CniError {
  const texts = [...lost.map(({ text }) => text), ...drift];
  const what =
    lost.length > 0 ? 'traffic does not go through the proxy any more' : 'the rules are not as configured';
  return new CniError(
    CniCode.Internal,
    `${what}: ${texts[0] ?? ''}${texts.length > 1 ? ` (and ${texts.length - 1} more)` : ''}`,
    {
      details: `${name}: ${texts.join('; ')}`,
    },
  );
}
