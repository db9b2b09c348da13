/** What FakeNftables holds, as the text that `nft -n -s list ruleset` prints. */
import { decodeVerdict } from '../../../shared/packetfilter/nftables/decode-expressions.ts';
import { attributeOf } from '../../../shared/packetfilter/nftables/nlattr.ts';
import { commentOf } from '../../../shared/packetfilter/nftables/reader.ts';
import { isEnd, valueOf, type FakeChain, type FakeSet, type FakeTable } from './fake-nftables.ts';
import { addressText, nameText, ruleText, u32, verdictText } from './fake-statements.ts';

export function listRuleset(tables: readonly FakeTable[]): string {
  return tables.map(tableText).join('');
}

function tableText(table: FakeTable): string {
  const comment = commentOf(table.userdata);
  const blocks = [
    ...[...table.sets.values()].map(setLines),
    ...[...table.chains.values()].map((chain) => chainLines(table, chain)),
  ];
  return [
    `table ${FAMILY_NAMES[table.family]} ${table.name} {`,
    ...(comment === undefined ? [] : [`\tcomment "${comment}"`]),
    ...blocks.flatMap((lines, at) => [...(at > 0 ? [''] : []), ...lines]),
    '}',
    '',
  ].join('\n');
}

function chainLines(table: FakeTable, chain: FakeChain): string[] {
  const comment = commentOf(chain.userdata);
  return [
    `\tchain ${chain.name} {`,
    ...(comment === undefined ? [] : [`\t\tcomment "${comment}"`]),
    ...hookLine(table, chain),
    ...chain.rules.map((rule) => `\t\t${ruleText(table, rule)}`),
    '\t}',
  ];
}

function hookLine(table: FakeTable, { hook, type, policy }: FakeChain): string[] {
  if (hook === undefined || type === undefined) return [];
  const [number, priority] = [1, 2].map((attribute) => attributeOf(hook, attribute)?.readInt32BE() ?? 0);
  const name = HOOKS[number ?? 0];
  const verdict = policy?.readUInt32BE() === 0 ? 'drop' : 'accept';
  return [`\t\ttype ${nameText(type)} hook ${name} priority ${priority}; policy ${verdict};`];
}

function setLines(set: FakeSet): string[] {
  const flags = u32(attributeOf(set.attributes, 3));
  const key = typesOf(u32(attributeOf(set.attributes, 4)));
  const data = attributeOf(set.attributes, 6);
  const value = data === undefined ? [] : u32(data) === VERDICT_DATA ? ['verdict'] : typesOf(u32(data));
  const elements = elementTexts(set, key, value);
  return [
    `\t${(flags & SET_MAP) === 0 ? 'set' : 'map'} ${set.name} {`,
    `\t\ttype ${key.join(' . ')}${value.length === 0 ? '' : ` : ${value.join(' . ')}`}`,
    ...((flags & SET_INTERVAL) === 0 ? [] : ['\t\tflags interval']),
    ...(elements.length === 0 ? [] : [`\t\telements = { ${elements.join(', ')} }`]),
    '\t}',
  ];
}

/** Sorted by key; nft has an order of its own. */
function elementTexts(set: FakeSet, key: readonly string[], value: readonly string[]): string[] {
  const sorted = [...set.elements.values()].sort((one, other) =>
    Buffer.compare(valueOf(one), valueOf(other)),
  );
  const isInterval = (u32(attributeOf(set.attributes, 3)) & SET_INTERVAL) !== 0;
  return sorted.flatMap((element, at) => {
    if (isEnd(element)) return [];
    const after = sorted[at + 1];
    const end = isInterval && after !== undefined && isEnd(after) ? valueOf(after) : undefined;
    const text =
      end === undefined ? valuesText(key, valueOf(element)) : intervalText(key, valueOf(element), end);
    const comment = commentOf(attributeOf(element, 6));
    const data = attributeOf(element, 2);
    const mapped =
      data === undefined
        ? ''
        : value[0] === 'verdict'
          ? ` : ${verdictText(decodeVerdict(data))}`
          : ` : ${valuesText(value, attributeOf(data, 1) ?? Buffer.alloc(0))}`;
    return [`${text}${comment === undefined ? '' : ` comment "${comment}"`}${mapped}`];
  });
}

function intervalText(types: readonly string[], first: Buffer, after: Buffer): string {
  const last = previous(after);
  if (first.equals(last)) return valuesText(types, first);
  const [type = ''] = types;
  if (!type.endsWith('_addr')) return `${valuesText(types, first)}-${valuesText(types, last)}`;
  const bits = [...first].findIndex((byte, at) => byte !== last[at]);
  const differing = (first[bits] ?? 0) ^ (last[bits] ?? 0);
  return `${valuesText(types, first)}/${8 * bits + Math.clz32(differing) - 24}`;
}

function previous(bytes: Buffer): Buffer {
  const before = BigInt(`0x${bytes.toString('hex')}`) - 1n;
  return Buffer.from(before.toString(16).padStart(2 * bytes.length, '0'), 'hex');
}

/** nft's datatypes are six bits each in one number. */
function typesOf(number: number): string[] {
  return number === 0
    ? []
    : [...typesOf(Math.floor(number / 64)), TYPES[number % 64]?.name ?? `type ${number % 64}`];
}

function valuesText(types: readonly string[], bytes: Buffer): string {
  let at = 0;
  return types
    .map((type) => {
      const size = Object.values(TYPES).find(({ name }) => name === type)?.bytes ?? 0;
      const value = bytes.subarray(at, at + size);
      at += (size + 3) & ~3;
      return valueText(type, value);
    })
    .join(' . ');
}

function valueText(type: string, value: Buffer): string {
  switch (type) {
    case 'ipv4_addr':
    case 'ipv6_addr':
      return addressText(value);
    case 'inet_service':
      return `${value.readUInt16BE()}`;
    case 'inet_proto':
      return `${value[0]}`;
    default:
      return `"${nameText(value)}"`;
  }
}

const TYPES: Readonly<Record<number, { readonly name: string; readonly bytes: number }>> = {
  7: { name: 'ipv4_addr', bytes: 4 },
  8: { name: 'ipv6_addr', bytes: 16 },
  12: { name: 'inet_proto', bytes: 1 },
  13: { name: 'inet_service', bytes: 2 },
  41: { name: 'ifname', bytes: 16 },
};

const FAMILY_NAMES: Readonly<Record<number, string>> = { 1: 'inet', 2: 'ip', 7: 'bridge', 10: 'ip6' };
/** NF_INET_* */
const HOOKS = ['prerouting', 'input', 'forward', 'output', 'postrouting'];
const VERDICT_DATA = 0xffffff00;
const SET_INTERVAL = 4;
const SET_MAP = 8;
