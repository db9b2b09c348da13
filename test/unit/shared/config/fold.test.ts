import * as assert from 'uvu/assert';
import * as z from 'zod/mini';
import { foldKeys } from '../../../../shared/config/decode.ts';
import { Decimal, parseJson } from '../../../../shared/config/json.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

const test = suite('cni: keys and numbers');

const Inner = z.object({ aB: z.optional(z.int()) });
const given = { AB: 1 };
const folded = { aB: 1 };

/** Every kind of schema that can stand between a configuration and its objects. */
const WRAPPED: Readonly<Record<string, [z.core.$ZodType, unknown, unknown]>> = {
  object: [Inner, given, folded],
  array: [z.array(Inner), [given, 5], [folded, 5]],
  tuple: [z.tuple([z.string(), Inner], Inner), ['x', given, given], ['x', folded, folded]],
  record: [z.record(z.string(), Inner), { KEY: given, gone: null }, { KEY: folded }],
  optional: [z.optional(Inner), given, folded],
  nullable: [z.nullable(Inner), given, folded],
  default: [z._default(Inner, {}), given, folded],
  prefault: [z.prefault(Inner, {}), given, folded],
  readonly: [z.readonly(Inner), given, folded],
  catch: [z.catch(Inner, {}), given, folded],
  nonoptional: [z.nonoptional(z.optional(Inner)), given, folded],
  transformed: [
    z.pipe(
      Inner,
      z.transform((value) => value),
    ),
    given,
    folded,
  ],
  preprocessed: [
    z.pipe(
      z.transform((value) => value),
      Inner,
    ),
    given,
    folded,
  ],
  lazy: [z.lazy(() => Inner), given, folded],
  union: [z.union([z.string(), z.object({ cD: z.int() }), Inner]), { AB: 1, CD: 2 }, { aB: 1, cD: 2 }],
  intersection: [z.intersection(Inner, z.object({ cD: z.int() })), { AB: 1, CD: 2 }, { aB: 1, cD: 2 }],
  catchall: [z.catchall(z.object({}), Inner), { Any: given }, { Any: folded }],
};

for (const [kind, [schema, value, expected]] of Object.entries(WRAPPED)) {
  test(`keys are folded through: ${kind}`, () => assert.equal(foldKeys(schema, value), expected));
}

test('a value of another kind stays what it is, for its schema to refuse', () => {
  for (const [schema] of Object.values(WRAPPED)) {
    for (const value of [5, 'x', true, null, undefined]) assert.is(foldKeys(schema, value), value);
  }
});

test('null is left out, except where the schema asks for it', () => {
  const Schema = z.object({ a: z.optional(z.int()), b: z.nullable(z.int()), c: z.null() });
  assert.equal(foldKeys(Schema, { A: null, B: null, C: null, other: null }), {
    b: null,
    c: null,
  });
});

test('the value given is not changed', () => {
  const value = { AB: 1, x: [{ AB: 2 }] };
  foldKeys(z.object({ aB: z.int(), x: z.array(Inner) }), value);
  assert.equal(value, { AB: 1, x: [{ AB: 2 }] });
});

test('whole numbers are numbers; what is written otherwise is kept as written', () => {
  assert.equal(parseJson('[0,-5,9007199254740991]', 'x'), [0, -5, 9007199254740991]);
  assert.ok(Object.is((parseJson('[-0]', 'x') as number[])[0], 0));
  for (const text of ['1.0', '1e3', '1E-2', '-0.5', '9007199254740993', '123456789012345678901234567890']) {
    const [number] = parseJson(`[${text}]`, 'x') as unknown[];
    assert.instance(number, Decimal);
    assert.is(JSON.stringify({ number }), `{"number":${text}}`);
  }
});

test('what is no JSON is explained', () => {
  assert.is(
    thrown(() => parseJson('', 'the file')).message,
    'the file: unexpected end of JSON input (it is empty)',
  );
  assert.match(thrown(() => parseJson('{"a":}', 'the file')).message, /^the file: Unexpected token/);
  for (const text of [
    '{"a":01}',
    '{"a":+1}',
    '{"a":.5}',
    '{"a":NaN}',
    "{'a':1}",
    '{"a":1,}',
    '{} {}',
    '{"a":"\n"}',
  ]) {
    assert.is(thrown(() => parseJson(text, 'the file')).code, 6);
  }
});

test.run();
