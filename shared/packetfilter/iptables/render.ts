import type { Match, Negatable, PortRange, Rule, Target } from '../ruleset.ts';

/**
 * A rule as iptables-save prints it after `-A CHAIN `, byte for byte (iptables 1.8, both variants). Two rules are equal if and only if their texts
 * are, except for the order of matches (see compare.ts).
 */
export function ruleText(rule: Rule): string {
  const known = TEXTS.get(rule);
  if (known !== undefined) return known;
  const text = rendered(rule);
  TEXTS.set(rule, text);
  return text;
}

/** Rules never change, and their texts are compared again and again. */
const TEXTS = new WeakMap<Rule, string>();

function rendered(rule: Rule): string {
  const parts = [
    ...negatable('-s', rule.source),
    ...negatable('-d', rule.destination),
    ...negatable('-i', rule.inInterface),
    ...negatable('-o', rule.outInterface),
    ...(rule.protocol === undefined ? [] : [`-p ${PROTOCOL_NAMES[rule.protocol]}`]),
    ...(rule.matches ?? []).map((match) => matchText(match, rule.protocol)),
    targetText(rule.target),
  ];
  return parts.join(' ');
}

export function matchText(match: Match, protocol: Rule['protocol']): string {
  switch (match.kind) {
    case 'comment':
      return `-m comment --comment ${savedText(match.comment)}`;
    case 'conntrack':
      return `-m conntrack --ctstate ${STATES.filter((state) => match.states.includes(state)).join(',')}`;
    case 'addrtype':
      return `-m addrtype --dst-type ${match.destinationType}`;
    case 'multiport':
      return `-m multiport --dports ${match.destinationPorts.map(portText).join(',')}`;
    case 'port':
      return `-m ${protocol ?? 'tcp'} --dport ${portText(match.destinationPort)}`;
    case 'mark':
      return `-m mark ${match.negated === true ? '! ' : ''}--mark ${markText(match.value, match.mask)}`;
    case 'owner':
      return `-m owner --uid-owner ${rangeText(match.uid, '-')}`;
    case 'rawArgs':
      return match.args.map(savedArg).join(' ');
  }
}

/** netinet/in.h names as iptables prints them. */
export const PROTOCOL_NAMES: Readonly<Record<NonNullable<Rule['protocol']>, string>> = {
  tcp: 'tcp',
  udp: 'udp',
  sctp: 'sctp',
  icmp: 'icmp',
  icmpv6: 'ipv6-icmp',
};

/** In the order in which the conntrack match prints its states. */
const STATES = ['INVALID', 'NEW', 'RELATED', 'ESTABLISHED'] as const;

const WHOLE_MARK = 0xffff_ffff;

function negatable(flag: string, value: Negatable | undefined): string[] {
  if (value === undefined) return [];
  return [`${value.negated === true ? '! ' : ''}${flag} ${savedArg(value.value)}`];
}

function targetText(target: Target): string {
  switch (target.kind) {
    case 'jump':
      return `-j ${target.chain}`;
    case 'accept':
    case 'drop':
    case 'return':
    case 'masquerade':
      return `-j ${target.kind.toUpperCase()}`;
    case 'mark':
      return `-j MARK --set-xmark ${hex(target.value)}/${hex(target.mask)}`;
    case 'dnat':
      return `-j DNAT --to-destination ${target.to}`;
    case 'redirect':
      return `-j REDIRECT --to-ports ${target.port}`;
    case 'reject':
      return `-j REJECT --reject-with ${target.with}`;
  }
}

/** iptables leaves the mask out when it covers the whole mark. */
function markText(value: number, mask: number): string {
  return mask === WHOLE_MARK ? hex(value) : `${hex(value)}/${hex(mask)}`;
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

function portText(range: PortRange): string {
  return rangeText(range, ':');
}

function rangeText({ first, last }: PortRange, separator: string): string {
  return first === last ? String(first) : `${first}${separator}${last}`;
}

/**
 * The arguments of a line of iptables-save, split as iptables-restore does: at blanks; `"` begins and ends a quotation, in which a backslash
 * escapes the next character.
 */
export function splitArgs(line: string): string[] {
  if (!line.includes('"')) return line.split(' ').filter((word) => word !== '');
  const words: string[] = [];
  let word: string | undefined;
  let quoted = false;
  for (let at = 0; at < line.length; at++) {
    const character = line.charAt(at);
    if (character === '"') {
      quoted = !quoted;
      word ??= '';
    } else if (quoted && character === '\\') {
      at += 1;
      word = `${word ?? ''}${line.charAt(at)}`;
    } else if (!quoted && character === ' ') {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = `${word ?? ''}${character}`;
    }
  }
  if (word !== undefined) words.push(word);
  return words;
}

/** A comment as iptables-save prints it: unquoted if it has word characters only, else quoted and escaped. */
export function savedText(text: string): string {
  return /^[\w-]+$/.test(text) ? text : quoted(text);
}

/** Any other argument: quoted only if iptables-restore would split it. */
export function savedArg(word: string): string {
  return word === '' || /[\s"'\\]/.test(word) ? quoted(word) : word;
}

function quoted(text: string): string {
  return `"${text.replaceAll(/["'\\]/g, '\\$&')}"`;
}
