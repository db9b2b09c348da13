import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Backend, OwnTable } from './backend.ts';
import type { Backends } from './backends.ts';
import {
  brokenRules,
  differences,
  dnsInForce,
  natOf,
  proxyInForce,
  requiredRules,
  type BrokenRule,
} from './differences.ts';
import type { TproxyOptions } from './config.ts';
import type { TablePlan } from './plan.ts';
import { bypassWarning, listenersOn, processesBypassingProxy, processesHere } from './processes.ts';
import type { ProxyRequest } from './request.ts';

export interface CheckInput {
  readonly request: ProxyRequest;
  readonly options: TproxyOptions;
  readonly plan: (request: ProxyRequest, options: TproxyOptions) => readonly TablePlan[];
  readonly warn: (line: string) => void;
}

/**
 * Whether the proxy still intercepts the allocation's traffic; for use inside its namespace, changes nothing.
 *
 * Nomad destroys the network of a running allocation when this throws, so with `check: "structure"` only broken interception throws; every
 * other difference is a warning. Nomad's agent builds the arguments anew when it starts, from what the node knows by then (no DNS while
 * Consul is down, another default uid or port, other addresses), while rules and proxy are as they were when the allocation started.
 */
export function checkRules(backends: Backends, input: CheckInput): void {
  const { backend, tables } = rulesInForce(backends, input);
  const request = withDnsInForce(input, tables);
  const strict = input.options.check === 'strict';
  const broken = brokenRules(natOf(tables), requiredRules(request));
  const damage = strict
    ? broken
    : broken.filter(({ required }) => required.identifiesProxy !== true || !servesAnotherProxy(tables));
  const drift = [...configurationDrift(input, request, tables), ...duplicates(backends, backend)];
  if (damage.length > 0 || (strict && drift.length > 0)) {
    throw checkError(backend, damage, strict ? drift : []);
  }
  for (const text of drift) input.warn(`rules differ from the current configuration: ${text}`);
  const bypassing = processesBypassingProxy(processesHere(), {
    uid: request.proxyUid,
    ports: [request.inboundPort, request.outboundPort],
  });
  if (bypassing.length > 0) input.warn(bypassWarning(bypassing));
}

/** One text per option that has changed since ADD, if that explains all differences; else one per chain that differs. */
function configurationDrift(
  { options, plan }: CheckInput,
  request: ProxyRequest,
  tables: readonly OwnTable[],
): string[] {
  const found = differences(plan(request, options), tables);
  if (found.length === 0) return [];
  const explanation = OPTION_COMBINATIONS.map((combination) => changedKeys(combination, options))
    .sort((one, other) => one.length - other.length)
    .find(
      (keys) => differences(plan(request, { ...options, ...Object.fromEntries(keys) }), tables).length === 0,
    );
  return explanation === undefined
    ? found.map(({ text }) => text)
    : explanation.map(([key, before]) => `"${key}" is "${options[key]}", but was "${before}" at ADD`);
}

type RuleOptions = Pick<TproxyOptions, 'exemptions' | 'ipv6' | 'udp' | 'dnsCapture'>;

/** Every combination of the options that change rules. */
const OPTION_COMBINATIONS: readonly RuleOptions[] = (['full', 'consul'] as const).flatMap((exemptions) =>
  (['reject', 'redirect', 'bypass'] as const).flatMap((ipv6) =>
    (['bypass', 'reject'] as const).flatMap((udp) =>
      (['consul', 'all'] as const).map((dnsCapture) => ({ exemptions, ipv6, udp, dnsCapture })),
    ),
  ),
);

function changedKeys(combination: RuleOptions, options: TproxyOptions): [keyof RuleOptions, string][] {
  const keys = ['exemptions', 'ipv6', 'udp', 'dnsCapture'] as const;
  return keys.filter((key) => combination[key] !== options[key]).map((key) => [key, combination[key]]);
}

interface RulesInForce {
  readonly backend: Backend;
  readonly tables: readonly OwnTable[];
}

/** Another back end's rules count: the operator may have changed the back end while the allocation was running. */
function rulesInForce({ chosen, others }: Backends, { request, warn }: CheckInput): RulesInForce {
  const inChosen = { backend: chosen, tables: chosen.read() };
  const isWhole = ({ tables }: RulesInForce): boolean =>
    brokenRules(natOf(tables), requiredRules(request)).length === 0;
  if (isWhole(inChosen)) return inChosen;
  const other = others.map((backend) => ({ backend, tables: backend.read() })).find(isWhole);
  if (other === undefined) return inChosen;
  warn(
    `the rules are in ${other.backend.name}, but "backend" now selects ${chosen.name}; the next ADD moves them`,
  );
  return other;
}

/** Of two redirects to different ports the older one wins, and the rules do not tell which one that is. */
function duplicates({ chosen, others }: Backends, inForce: Backend): string[] {
  return [chosen, ...others]
    .filter((backend) => backend !== inForce && backend.present())
    .map(({ name }) => `${name} also holds transparent-proxy rules; the next ADD removes them`);
}

/** Arguments without DNS mean that the node does not know Consul's address right now, not that the allocation should have no DNS. */
function withDnsInForce({ request, warn }: CheckInput, tables: readonly OwnTable[]): ProxyRequest {
  const dns = request.dns === undefined ? dnsInForce(tables) : undefined;
  if (dns === undefined) return request;
  warn(
    `CNI_ARGS has no Consul DNS, but the rules redirect queries to ${dns.address?.text ?? 'loopback'} port ${dns.port || 53}; ignored`,
  );
  return { ...request, dns };
}

/**
 * Whether a proxy serves the rules in force: it listens where they redirect outbound connections, as a user that they exempt. Then another
 * uid or port in the arguments comes from a changed node configuration.
 */
function servesAnotherProxy(tables: readonly OwnTable[]): boolean {
  const { port, uids } = proxyInForce(natOf(tables));
  if (port === undefined) return false;
  return listenersOn([port], processesHere()).some(({ uid }) =>
    uids.some(({ first, last }) => uid >= first && uid <= last),
  );
}

function checkError({ name }: Backend, damage: readonly BrokenRule[], drift: readonly string[]): CniError {
  const texts = [...damage.map(({ text }) => text), ...drift];
  const what =
    damage.length > 0
      ? 'transparent proxy interception is broken'
      : 'the transparent-proxy rules are not as configured';
  const more = texts.length > 1 ? ` (and ${texts.length - 1} more)` : '';
  return new CniError(CniCode.Internal, `${what}: ${texts[0] ?? ''}${more}`, {
    details: `${name}: ${texts.join('; ')}`,
  });
}
