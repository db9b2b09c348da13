/** nf_tables objects as commands of nft(8): for `weft render`, messages, and the tests of the encoder. */
import type { NftChain, NftElement, NftHook, NftRule, NftSet, NftStatement, NftTable } from './model.ts';

export function tableCommand(table: NftTable): string {
  const comment = table.comment === undefined ? '' : ` { comment "${table.comment}" ; }`;
  return `add table ${table.family} ${table.name}${comment}`;
}

export function chainCommand(chain: NftChain): string {
  const parts = [
    ...(chain.hook === undefined ? [] : [hookText(chain.hook)]),
    ...(chain.comment === undefined ? [] : [`comment "${chain.comment}" ;`]),
  ];
  const body = parts.length === 0 ? '' : ` { ${parts.join(' ')} }`;
  return `add chain ${chain.table.family} ${chain.table.name} ${chain.name}${body}`;
}

export function ruleCommand(rule: NftRule): string {
  const { table, name } = rule.chain;
  return `add rule ${table.family} ${table.name} ${name} ${ruleText(rule)}`;
}

export function setCommand(set: NftSet): string {
  const { data } = set;
  const mapped = data === undefined ? '' : ` : ${data === 'verdict' ? data : data.join(' . ')}`;
  const flags = set.interval === true ? ' flags interval ;' : '';
  const kind = data === undefined ? 'set' : 'map';
  return `add ${kind} ${set.table.family} ${set.table.name} ${set.name} { type ${set.key.join(' . ')}${mapped} ;${flags} }`;
}

export function elementCommand(element: NftElement): string {
  const { set, data } = element;
  const comment = element.comment === undefined ? '' : ` comment "${element.comment}"`;
  const mapped =
    data === undefined ? '' : ` : ${data.kind === 'value' ? data.value.join(' . ') : statementText(data)}`;
  return `add element ${set.table.family} ${set.table.name} ${set.name} { ${element.key.join(' . ')}${comment}${mapped} }`;
}

/** The statements and the comment, without chain. */
export function ruleText(rule: Pick<NftRule, 'statements' | 'comment'>): string {
  const comment = rule.comment === undefined ? [] : [`comment "${rule.comment}"`];
  return [...rule.statements.map(statementText), ...comment].join(' ');
}

function hookText({ type, hook, priority, policy }: NftHook): string {
  return `type ${type} hook ${hook} priority ${priority} ; policy ${policy ?? 'accept'} ;`;
}

function statementText(statement: NftStatement): string {
  const not = 'not' in statement && statement.not ? '!= ' : '';
  switch (statement.kind) {
    case 'accept':
    case 'drop':
    case 'return':
    case 'counter':
    case 'masquerade':
    case 'ct status dnat':
    case 'fib daddr type local':
      return statement.kind;
    case 'rawArgs':
      return statement.args.join(' ');
    case 'jump':
    case 'goto':
      return `${statement.kind} ${statement.chain}`;
    case 'address':
      return `${statement.cidr.includes(':') ? 'ip6' : 'ip'} ${statement.side} ${not}${statement.cidr}`;
    case 'interface':
      return `${statement.side} ${not}"${statement.name}"`;
    case 'nfproto':
      return `meta nfproto ${statement.family}`;
    case 'l4proto':
      return `meta l4proto ${statement.protocol}`;
    case 'dport':
      return `th dport ${span(statement)}`;
    case 'ether saddr':
      return `ether saddr ${statement.mac}`;
    case 'skuid':
      return `meta skuid ${span(statement)}`;
    case 'ct state':
      return `ct state ${statement.states.join(',')}`;
    case 'mark':
      return `meta mark and ${hex(statement.mask)} == ${hex(statement.value)}`;
    case 'set mark bits':
      return `meta mark set meta mark or ${hex(statement.bits)}`;
    case 'lookup':
      return `${statement.fields.join(' . ')} ${statement.set.data === 'verdict' ? 'vmap ' : not}@${statement.set.name}`;
    case 'dnat':
      return `dnat ${statement.family} to ${natTarget(statement)}`;
    case 'dnat map':
      return `dnat ${statement.family} to ${statement.fields.join(' . ')} map @${statement.set.name}`;
    case 'redirect':
      return `redirect to :${statement.port}`;
    case 'reject':
      return `reject with ${statement.with === 'tcp reset' ? 'tcp reset' : 'icmpx type port-unreachable'}`;
  }
}

function natTarget({ address, port }: NftStatement & { kind: 'dnat' }): string {
  if (port === undefined) return address;
  return `${address.includes(':') ? `[${address}]` : address}:${span(port)}`;
}

function span({ first, last }: { first: number; last: number }): string {
  return first === last ? `${first}` : `${first}-${last}`;
}

function hex(value: number): string {
  return `0x${(value >>> 0).toString(16)}`;
}
