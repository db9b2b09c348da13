import * as assert from 'uvu/assert';
import * as z from 'zod/mini';
import { decodeConfig, decodeSettings } from '../../../../shared/config/decode.ts';
import { Decimal, parseJson, show } from '../../../../shared/config/json.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

const test = suite('JSON of a configuration');

test('numbers that are no plain whole numbers keep their text, in strings nothing changes', () => {
  const text = '{"a":1.0,"b":1e3,"c":-0,"d":9007199254740993,"e":12,"f":"1.0 \\" 1e3","g":-7,"h":1E2}';
  const value = parseJson(text, 'x') as Record<string, unknown>;
  for (const key of ['a', 'b', 'd', 'h']) assert.instance(value[key], Decimal, key);
  assert.is(Object.is(value['c'], 0), true);
  assert.equal([value['e'], value['f'], value['g']], [12, '1.0 " 1e3', -7]);
  assert.is(JSON.stringify(value), text.replace('-0', '0'));
});

test('a document that is nested too deeply is rejected before anything walks through it', () => {
  for (const text of ['['.repeat(2_000_000), `${'{"a":'.repeat(5_000)}1${'}'.repeat(5_000)}`]) {
    const error = thrown(() => parseJson(text, 'config'));
    assert.equal([error.code, error.message], [6, 'config: it is nested too deeply']);
  }
  assert.equal(parseJson('"[[[["', 'x'), '[[[[');
  assert.is(Array.isArray(parseJson(`${'['.repeat(900)}${']'.repeat(900)}`, 'x')), true);
});

test('text that never closes a string or escapes many quotes takes linear time', () => {
  for (const text of [`"${'\\"'.repeat(500_000)}`, `"${'\\'.repeat(1_000_000)}`, '"'.repeat(1_000_001)]) {
    assert.is(thrown(() => parseJson(text, 'x')).code, 6);
  }
});

test('an error names the first problems and counts the others', () => {
  const schema = z.object({ list: z.array(z.string()) });
  const short = thrown(() => decodeConfig(schema, { list: Array.from({ length: 20 }, () => 5) }, 'thing'));
  assert.match(short.message, '"list[11]" must be a string, got 5 (number); and 8 more');
  const long = thrown(() => decodeConfig(schema, { list: Array.from({ length: 90_000 }, () => 5) }, 'thing'));
  assert.match(long.message, 'and at least 988 more');
  assert.ok(long.message.length < 2000);
  const entry = z.object({ a: z.string(), b: z.string() });
  const entries = Array.from({ length: 90_000 }, () => ({}));
  const huge = thrown(() => decodeConfig(z.object({ list: z.array(entry) }), { list: entries }, 'thing'));
  assert.is(huge.message, 'invalid thing: the document has more than 100,000 invalid members');
});

test('lists of more than 100,000 entries together are rejected without a look at the entries; the other members stay', () => {
  const schema = z.object({
    name: z.string(),
    inner: z.object({ lists: z.optional(z.array(z.array(z.string()))), size: z.optional(z.int()) }),
  });
  const many = Array.from({ length: 40_000 }, () => 'x');
  const document = { name: 'n', inner: { lists: [many, many, many], size: 5 } };
  const said = '"inner.lists" has too many entries; all lists together may have at most 100000';
  assert.is(thrown(() => decodeConfig(schema, document, 'thing')).message, `invalid thing: ${said}`);
  assert.equal(decodeSettings(schema, document), {
    problems: [said],
    partial: { name: 'n', inner: { size: 5 } },
  });
});

test('a NUL character is an invalid string, at any depth', () => {
  const schema = z.object({ name: z.string(), list: z.optional(z.array(z.string())) });
  const error = thrown(() => decodeConfig(schema, { name: 'a\0b', list: ['x', '\0'] }, 'thing'));
  assert.is(error.code, 7);
  assert.match(error.message, '"name" must be a string, got "a\\u0000b" (string with a NUL character)');
  assert.match(error.message, '"list[1]" must be a string');
});

test('every member that is valid on its own is kept, also inside of an object', () => {
  const schema = z.object({
    name: z.string(),
    size: z._default(z.int(), 4),
    ipam: z.optional(z.object({ type: z.string(), ranges: z.array(z.string()) })),
    flag: z._default(z.boolean(), false),
  });
  const decoded = decodeSettings(schema, { NAME: 'x', size: '4', ipam: { Type: 'a', ranges: 5 } });
  assert.ok('problems' in decoded);
  assert.is(decoded.problems.length, 2);
  assert.equal(decoded.partial, { name: 'x', ipam: { type: 'a' }, flag: false });
  const nothing = decodeSettings(schema, 'text');
  assert.equal('problems' in nothing && nothing.partial, {});
});

test('a large value is shown by its beginning', () => {
  const shown = show({ list: Array.from({ length: 1_000_000 }, (_, at) => at), text: 'x'.repeat(1_000_000) });
  assert.is(shown.length, 83);
  assert.match(shown, /^\{"list":\[0,1,2,/);
});

test.run();
