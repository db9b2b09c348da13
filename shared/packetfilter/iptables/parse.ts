import type { UnmanagedRule, Match, PortRange, Rule, Target } from '../ruleset.ts';
import { PROTOCOL_NAMES, splitArgs } from './render.ts';

/**
 * A rule from the text that iptables-save prints after `-A CHAIN `. An unknown match keeps its raw arguments; a rule with an unknown protocol or
 * target, or without a target, is unmanaged.
 */
export function parseRule(text: string): Rule | UnmanagedRule {
  const parts = parseRuleArgs(splitArgs(text));
  return parts?.target === undefined ? { unmanaged: text } : { ...parts, target: parts.target };
}

/** A rule's parts; options in any order, and in the long forms that an operator may write. */
export type RuleParts = Omit<Rule, 'target'> & { readonly target?: Target };

/** @returns undefined if an option is neither a match nor the target that ends the rule */
export function parseRuleArgs(args: readonly string[]): RuleParts | undefined {
  const parts: Writable<RuleParts> = {};
  const matches: Match[] = [];
  for (let at = 0; at < args.length;) {
    const negated = args[at] === '!';
    const flag = args[negated ? at + 1 : at] ?? '';
    const value = args[negated ? at + 2 : at + 1] ?? '';
    const address = ADDRESS_FLAGS.get(flag);
    if (address !== undefined) {
      parts[address] = negated ? { value, negated } : { value };
    } else if (flag === '-p' || flag === '--protocol') {
      const protocol = PROTOCOLS.get(value);
      if (protocol === undefined || negated) return undefined;
      parts.protocol = protocol;
    } else if (flag === '-j' || flag === '--jump') {
      const target = parseTarget(value, args.slice(at + 2));
      if (target === undefined || negated) return undefined;
      parts.target = target;
      break;
    } else if (flag === '-m' || flag === '--match') {
      const end = endOfMatch(args, at + 2);
      matches.push(parseMatch(value, args.slice(at + 2, end)));
      at = end;
      continue;
    } else {
      return undefined;
    }
    at += negated ? 3 : 2;
  }
  return matches.length > 0 ? { ...parts, matches } : parts;
}

type Writable<Type> = { -readonly [Key in keyof Type]: Type[Key] };

const ADDRESS_FLAGS = new Map<string, 'source' | 'destination' | 'inInterface' | 'outInterface'>([
  ['-s', 'source'],
  ['--src', 'source'],
  ['--source', 'source'],
  ['-d', 'destination'],
  ['--dst', 'destination'],
  ['--destination', 'destination'],
  ['-i', 'inInterface'],
  ['--in-interface', 'inInterface'],
  ['-o', 'outInterface'],
  ['--out-interface', 'outInterface'],
]);

const PROTOCOLS: ReadonlyMap<string, NonNullable<Rule['protocol']>> = new Map(
  Object.entries(PROTOCOL_NAMES).map(([name, printed]) => [printed, name as NonNullable<Rule['protocol']>]),
);

const ENDS_A_MATCH = new Set([
  ...ADDRESS_FLAGS.keys(),
  '-m',
  '--match',
  '-p',
  '--protocol',
  '-j',
  '--jump',
  '-g',
  '--goto',
]);

/** A match's options end at the next option of the rule; `!` belongs to what follows it. */
function endOfMatch(args: readonly string[], from: number): number {
  let end = from;
  while (end < args.length && !ENDS_A_MATCH.has(args[end] ?? '')) end += 1;
  return args[end - 1] === '!' ? end - 1 : end;
}

function parseMatch(module: string, options: readonly string[]): Match {
  return MATCHES.get(module)?.(options) ?? { kind: 'rawArgs', args: ['-m', module, ...options] };
}

/** Exactly the options that each known match prints; with any other, the match keeps its raw arguments. */
const MATCHES = new Map<string, (options: readonly string[]) => Match | undefined>([
  [
    'comment',
    ([flag, comment, ...more]) =>
      flag === '--comment' && comment !== undefined && more.length === 0
        ? { kind: 'comment', comment }
        : undefined,
  ],
  [
    'conntrack',
    (options) => {
      const states = option(options, '--ctstate')?.split(',');
      return states?.every(isState) === true ? { kind: 'conntrack', states } : undefined;
    },
  ],
  [
    'addrtype',
    (options) =>
      option(options, '--dst-type') === 'LOCAL' ? { kind: 'addrtype', destinationType: 'LOCAL' } : undefined,
  ],
  [
    'multiport',
    (options) => {
      const list = option(options, '--dports') ?? option(options, '--destination-ports');
      const ranges = list?.split(',').map((text) => parseRange(text, ':'));
      if (ranges === undefined || ranges.includes(undefined)) return undefined;
      return { kind: 'multiport', destinationPorts: ranges.filter((range) => range !== undefined) };
    },
  ],
  ['tcp', parsePort],
  ['udp', parsePort],
  ['sctp', parsePort],
  [
    'mark',
    (options) => {
      const negated = options[0] === '!';
      const mark = parseMark(option(negated ? options.slice(1) : options, '--mark'));
      if (mark === undefined) return undefined;
      return negated ? { kind: 'mark', ...mark, negated } : { kind: 'mark', ...mark };
    },
  ],
  [
    'owner',
    (options) => {
      const uid = parseRange(option(options, '--uid-owner'), '-');
      return uid === undefined ? undefined : { kind: 'owner', uid };
    },
  ],
]);

function parsePort(options: readonly string[]): Match | undefined {
  const destinationPort = parseRange(
    option(options, '--dport') ?? option(options, '--destination-port'),
    ':',
  );
  return destinationPort === undefined ? undefined : { kind: 'port', destinationPort };
}

/** The value of the option, if it is the only one. */
function option(options: readonly string[], name: string): string | undefined {
  return options.length === 2 && options[0] === name ? options[1] : undefined;
}

function isState(text: string): text is 'NEW' | 'RELATED' | 'ESTABLISHED' | 'INVALID' {
  return text === 'NEW' || text === 'RELATED' || text === 'ESTABLISHED' || text === 'INVALID';
}

function parseRange(text: string | undefined, separator: string): PortRange | undefined {
  const [first, last, ...more] = text?.split(separator) ?? [];
  if (!isNumber(first) || (last !== undefined && !isNumber(last)) || more.length > 0) return undefined;
  return { first: Number(first), last: Number(last ?? first) };
}

function isNumber(text: string | undefined): boolean {
  return text !== undefined && /^(?:0|[1-9][0-9]{0,9})$/.test(text);
}

function parseMark(text: string | undefined): { value: number; mask: number } | undefined {
  const parts = /^(0x[0-9a-f]{1,8})(?:\/(0x[0-9a-f]{1,8}))?$/.exec(text ?? '');
  return parts === null ? undefined : { value: Number(parts[1]), mask: Number(parts[2] ?? '0xffffffff') };
}

function parseTarget(name: string, options: readonly string[]): Target | undefined {
  const known = TARGETS.get(name);
  if (known !== undefined) return known(options);
  return options.length === 0 && name !== '' ? { kind: 'jump', chain: name } : undefined;
}

const TARGETS = new Map<string, (options: readonly string[]) => Target | undefined>([
  ['ACCEPT', (options) => plain('accept', options)],
  ['DROP', (options) => plain('drop', options)],
  ['RETURN', (options) => plain('return', options)],
  ['MASQUERADE', (options) => plain('masquerade', options)],
  [
    'MARK',
    (options) => {
      const mark = parseMark(option(options, '--set-xmark'));
      return mark === undefined ? undefined : { kind: 'mark', ...mark };
    },
  ],
  [
    'DNAT',
    (options) => {
      const to = option(options, '--to-destination');
      return to === undefined ? undefined : { kind: 'dnat', to };
    },
  ],
  [
    'REDIRECT',
    (options) => {
      const port = option(options, '--to-ports');
      return isNumber(port) ? { kind: 'redirect', port: Number(port) } : undefined;
    },
  ],
  [
    'REJECT',
    (options) => {
      const answer = option(options, '--reject-with');
      return answer === 'tcp-reset' ||
        answer === 'icmp-port-unreachable' ||
        answer === 'icmp6-port-unreachable'
        ? { kind: 'reject', with: answer }
        : undefined;
    },
  ],
]);

function plain(
  kind: 'accept' | 'drop' | 'return' | 'masquerade',
  options: readonly string[],
): Target | undefined {
  return options.length === 0 ? { kind } : undefined;
}
