import type { Family, Rule } from '../../shared/packetfilter/ruleset.ts';
import { FAMILIES, FAMILY_NAMES, isWithoutPort, type View } from './describe-view.ts';
import { CHAINS } from './names.ts';

/** What becomes of queries: those that go to Consul, then the others of each family. */
export function describeDns(view: View): string {
  const captures = FAMILIES.flatMap((family) => captureOf(view, family) ?? []);
  const told = captures.map(
    ({ family, server, answerer, exempt }) =>
      `Queries over ${FAMILY_NAMES[family]} to ${server ?? 'any server'}, port 53, UDP and TCP${exempt}, are answered by ${answerer}.`,
  );
  const whole = captures.filter(({ server }) => server === undefined).map(({ family }) => family);
  const rest = FAMILIES.filter((family) => !whole.includes(family));
  return [
    ...(told.length === 0 ? ['DNS is not captured.'] : told),
    ...others(view, rest, told.length > 0),
  ].join(' ');
}

interface Capture {
  readonly family: Family;
  /** Undefined: any. */
  readonly server: string | undefined;
  readonly answerer: string;
  /** `, the proxy's user and … apart` */
  readonly exempt: string;
}

function captureOf(view: View, family: Family): Capture | undefined {
  if (view.hooked(family, 'nat', 'OUTPUT', CHAINS.dns, 'udp').length === 0) return undefined;
  const rules = view.rules(family, 'nat', CHAINS.dns);
  const last = rules.findLast(({ target }) => target.kind === 'dnat');
  if (last?.target.kind !== 'dnat') return undefined;
  const apart = rules.some(({ target }) => target.kind === 'return');
  return {
    family,
    server: last.destination?.value.replace(/\/\d+$/, ''),
    answerer: last.target.to,
    exempt: apart ? ', but for those of exempt users and to exempt networks' : ', whoever asks',
  };
}

/** Families whose queries fare alike share a sentence. */
function others(view: View, families: readonly Family[], besides: boolean): string[] {
  const fates = new Map<string, string[]>();
  for (const family of families) {
    const fate = fateOf(udpFate(view, family), tcpFate(view, family));
    fates.set(fate, [...(fates.get(fate) ?? []), FAMILY_NAMES[family]]);
  }
  return [...fates].map(
    ([fate, names]) => `${besides ? 'Other queries' : 'Queries'} over ${names.join(' and ')} ${fate}.`,
  );
}

type Fate = 'direct' | 'proxy' | 'refused';

function fateOf(udp: Fate, tcp: Fate): string {
  if (udp === 'refused') return tcp === 'refused' ? 'are refused' : 'are refused over UDP';
  if (tcp === 'direct') return 'go to the server that is asked, over TCP as well';
  return `go to the server that is asked; over TCP they ${tcp === 'proxy' ? 'go to the proxy' : 'are refused'}`;
}

function udpFate(view: View, family: Family): Fate {
  const jumps = view.hooked(family, 'filter', 'OUTPUT', CHAINS.rejectOut, 'udp');
  if (jumps.length === 0) return 'direct';
  return isDnsExempt(view.rules(family, 'filter', CHAINS.rejectOut), 'udp') ? 'direct' : 'refused';
}

function tcpFate(view: View, family: Family): Fate {
  const jumps = view.hooked(family, 'filter', 'OUTPUT', CHAINS.rejectOut, 'tcp');
  if (jumps.some((jump) => !isWithoutPort(jump))) return 'refused';
  const redirect = view.redirect(family, 'OUTPUT', CHAINS.output, CHAINS.outputRedirect);
  if (redirect !== undefined) return isDnsExempt(redirect.exempt, 'tcp') ? 'direct' : 'proxy';
  const refusal = view.refusal(family, 'OUTPUT', CHAINS.rejectOut);
  return refusal === undefined || isDnsExempt(refusal, 'tcp') ? 'direct' : 'refused';
}

/** Of every server: a return for port 53 of one address is Consul's. */
function isDnsExempt(rules: readonly Rule[], wanted: 'tcp' | 'udp'): boolean {
  return rules.some(
    ({ protocol, destination, matches = [], target }) =>
      target.kind === 'return' &&
      protocol === wanted &&
      destination === undefined &&
      matches.some(
        (match) =>
          match.kind === 'port' && match.destinationPort.first <= 53 && match.destinationPort.last >= 53,
      ),
  );
}
