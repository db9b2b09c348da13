import type { Random } from '../support/random.ts';

/** Values that have broken decoders before. */
const NASTY: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e21,
  2 ** 31,
  65536,
  '',
  ' ',
  '0',
  '-1',
  '..',
  '../../etc/passwd',
  'a\u0000b',
  'ä\ud800',
  'x'.repeat(1000),
  'ü'.repeat(70_000),
  'a\nnameserver 6.6.6.6',
  '\u001b[2J\r',
  'lo',
  'eth0',
  '/run/fifo',
  '/dev/zero',
  '/proc/self/ns/mnt',
  '%s%n',
  '10.0.0.0/33',
  '10.0.0.1/0',
  '255.255.255.255/32',
  '::/0',
  '::ffff:1.2.3.4/128',
  'fe80::1%eth0',
  'constructor',
  '__proto__',
  [],
  [[]],
  [null],
  Array.from({ length: 3000 }, (_, at) => at),
  Array.from({ length: 300 }, () => ({ dst: '10.0.0.0/8', gw: '10.0.0.1' })),
  nested(2000),
  {},
  { toString: 1 },
  { __proto__: null, length: -1 },
];

function nested(depth: number): unknown {
  let value: unknown = [];
  for (let left = depth; left > 0; left -= 1) value = [value];
  return value;
}

const KEYS = [
  '__proto__',
  'constructor',
  'toString',
  'length',
  '',
  'type',
  'name',
  'ipam',
  'prevResult',
  'dns',
  'ranges',
];

/** A copy of `value` with one place changed: replaced, removed, doubled, renamed, or something added. */
export function mutate(random: Random, value: unknown): unknown {
  if (random.chance(0.25) || typeof value !== 'object' || value === null) return random.pick(NASTY);
  if (Array.isArray(value)) return mutateList(random, value);
  return mutateObject(random, Object.entries(value));
}

function mutateList(random: Random, list: readonly unknown[]): unknown[] {
  const at = random.below(list.length + 1);
  if (list.length > 0 && random.chance(0.03))
    return Array.from({ length: 2000 }, () => list[at % list.length]);
  if (at === list.length || random.chance(0.2)) return [...list, random.pick([...NASTY, ...list])];
  if (random.chance(0.2)) return list.toSpliced(at, 1);
  return list.with(at, mutate(random, list[at]));
}

function mutateObject(random: Random, entries: [string, unknown][]): unknown {
  const at = random.below(entries.length + 1);
  const [key, value] = entries[at] ?? [random.pick(KEYS), null];
  if (at === entries.length) return Object.fromEntries([...entries, [key, random.pick(NASTY)]]);
  if (random.chance(0.1)) return Object.fromEntries(entries.toSpliced(at, 1));
  if (random.chance(0.1)) {
    return Object.fromEntries([...entries, [swappedCase(random, key), mutate(random, value)]]);
  }
  return Object.fromEntries(entries.with(at, [key, mutate(random, value)]));
}

function swappedCase(random: Random, text: string): string {
  return Array.from(text)
    .map((letter) => (random.chance(0.5) ? letter.toUpperCase() : letter.toLowerCase()))
    .join('');
}

/** The text with a few characters lost, doubled or exchanged: mostly no JSON any more. */
export function corrupt(random: Random, text: string): string {
  const characters = Array.from(text);
  for (let left = 1 + random.below(3); left > 0; left -= 1) {
    const at = random.below(characters.length);
    characters.splice(
      at,
      random.below(2),
      ...random.pick([[], ['"'], ['{'], ['\u0000'], [','], ['9'], ['\\'], ['}']]),
    );
  }
  return characters.join('');
}
