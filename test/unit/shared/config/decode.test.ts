import * as assert from 'uvu/assert';
import * as z from 'zod/mini';
import { decodeConfig } from '../../../../shared/config/decode.ts';
import { parseJson } from '../../../../shared/config/json.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

const test = suite('cni: decode');

const Port = z.object({ hostPort: z.int().check(z.minimum(1)), protocol: z._default(z.string(), 'tcp') });
const Config = z.object({
  isGateway: z._default(z.boolean(), false),
  mtu: z.optional(z.union([z.int(), z.literal('auto')])),
  ipam: z.optional(
    z.looseObject({
      type: z.string(),
      ranges: z._default(z.array(z.array(z.object({ subnet: z.string() }))), []),
    }),
  ),
  runtimeConfig: z.prefault(z.object({ portMappings: z._default(z.array(Port), []) }), {}),
  labels: z.optional(z.record(z.string(), z.object({ aKey: z.int() }))),
});

const decode = (text: string): z.output<typeof Config> =>
  decodeConfig(Config, parseJson(text, 'test'), 'test configuration');

test('keys in any case, at every depth that the schema describes', () => {
  const config = decode(
    '{"ISGATEWAY":true,"RuntimeConfig":{"PORTMAPPINGS":[{"HostPort":80,"Protocol":"udp"}]},"IPAM":{"TYPE":"x","Ranges":[[{"SUBNET":"s"}]]},"Labels":{"Kept":{"AKEY":1}}}',
  );
  assert.is(config.isGateway, true);
  assert.equal(config.runtimeConfig.portMappings, [{ hostPort: 80, protocol: 'udp' }]);
  assert.equal(config.ipam, { type: 'x', ranges: [[{ subnet: 's' }]] });
  assert.equal(config.labels, { Kept: { aKey: 1 } });
});

test('null is absent: defaults apply and an earlier value stays', () => {
  assert.is(decode('{"isGateway":null}').isGateway, false);
  assert.is(decode('{"isGateway":true,"ISGATEWAY":null}').isGateway, true);
  assert.equal(decode('{"runtimeConfig":{"portMappings":null}}').runtimeConfig.portMappings, []);
  assert.equal(decode('{"ipam":null}').ipam, undefined);
});

test('the last of several spellings counts', () => {
  assert.is(decode('{"isGateway":true,"isGateway":false}').isGateway, false);
  assert.is(decode('{"ISGATEWAY":false,"isGateway":true}').isGateway, true);
  assert.is(decode('{"isGateway":true,"IsGateway":false}').isGateway, false);
});

test('unknown keys are ignored, kept where the schema is loose, and never reach the prototype', () => {
  const config = decode(
    '{"other":{"a":null},"ipam":{"type":"x","Foreign":{"N":null}},"__proto__":{"isGateway":true}}',
  );
  assert.is(config.isGateway, false);
  assert.equal(config.ipam, { type: 'x', ranges: [], Foreign: { N: null } });
  assert.is(({} as Record<string, unknown>)['isGateway'], undefined);
});

const refusals: readonly [string, string][] = [
  ['{"isGateway":"yes"}', '"isGateway" must be true or false, got "yes" (string)'],
  ['{"isGateway":1}', '"isGateway" must be true or false, got 1 (number)'],
  ['{"mtu":1500.0}', '"mtu" must be a whole number or "auto", got 1500.0 (number)'],
  ['{"mtu":"1500"}', '"mtu" must be a whole number or "auto", got "1500" (string)'],
  ['{"ipam":{}}', '"ipam.type" is required'],
  [
    '{"ipam":{"type":"x","ranges":[[{"subnet":5}]]}}',
    '"ipam.ranges[0][0].subnet" must be a string, got 5 (number)',
  ],
  [
    '{"ipam":{"type":"x","ranges":[{"subnet":"s"}]}}',
    '"ipam.ranges[0]" must be a list, got {"subnet":"s"} (object)',
  ],
  ['{"ipam":[]}', '"ipam" must be an object, got [] (list)'],
  [
    '{"runtimeConfig":{"portMappings":[{"hostPort":0}]}}',
    '"runtimeConfig.portMappings[0].hostPort" must be at least 1, got 0',
  ],
  [
    '{"runtimeConfig":{"portMappings":[{"hostPort":1e3}]}}',
    '"runtimeConfig.portMappings[0].hostPort" must be a whole number, got 1e3 (number)',
  ],
  [
    '{"runtimeConfig":{"portMappings":[{"hostPort":99999999999999999999}]}}',
    '"runtimeConfig.portMappings[0].hostPort" must be a whole number, got 99999999999999999999 (number)',
  ],
  [
    '{"runtimeConfig":{"portMappings":[null]}}',
    '"runtimeConfig.portMappings[0]" must be an object, got null',
  ],
  ['[]', 'the document must be an object, got [] (list)'],
];

for (const [text, expected] of refusals) {
  test(`refused: ${text.slice(0, 70)}`, () => {
    const error = thrown(() => decode(text));
    assert.is(error.code, 7);
    assert.is(error.message, `invalid test configuration: ${expected}`);
  });
}

test('all problems in one error', () => {
  const error = thrown(() => decode('{"isGateway":"yes","ipam":{"ranges":5}}'));
  assert.is(
    error.message,
    'invalid test configuration: "isGateway" must be true or false, got "yes" (string); "ipam.type" is required; "ipam.ranges" must be a list, got 5 (number)',
  );
});

test("an author's own words are the rule, or the whole sentence", () => {
  const Own = z.object({
    a: z.string().check(z.refine(() => false, 'must not look like that')),
    b: z.string().check(z.refine(() => false, '"b" is out of the question')),
    c: z.string(),
    d: z.string({ error: 'must be the name of a thing' }),
    e: z.string().check(z.refine(() => false, 'a name has few bytes')),
    f: z.enum(['x'], { error: ({ input }) => `unknown kind ${JSON.stringify(input)}` }),
  });
  const error = thrown(() => decodeConfig(Own, { a: 'x', b: 'y', d: 4, e: 'z', f: 'w' }, 'thing'));
  assert.is(
    error.message,
    'invalid thing: "a" must not look like that, got "x"; "b" is out of the question; "c" is required; "d" must be the name of a thing, got 4 (number); "e": a name has few bytes, got "z"; "f": unknown kind "w"',
  );
});

test('rules of sizes, values, formats and strict objects', () => {
  const Rules = z.strictObject({
    short: z.string().check(z.minLength(3)),
    empty: z.string().check(z.minLength(1)),
    list: z.array(z.int()).check(z.maxLength(1)),
    small: z.int().check(z.maximum(4)),
    kind: z.enum(['a', 'b']),
    only: z.literal(4),
    match: z.string().check(z.regex(/^x/)),
  });
  const given = { short: 'a', empty: '', list: [1, 2], small: 5, kind: 'c', only: 5, match: 'y', more: 1 };
  const error = thrown(() => decodeConfig(Rules, given, 'thing'));
  assert.equal(error.message.replace('invalid thing: ', '').split('; '), [
    '"short" must have at least 3 characters, got "a"',
    '"empty" must not be empty, got ""',
    '"list" must have at most 1 entries, got [1,2]',
    '"small" must be at most 4, got 5',
    '"kind" must be one of "a", "b", got "c"',
    '"only" must be 4, got 5',
    '"match" must be a string that matches /^x/, got "y"',
    '"more" is not known',
  ]);
});

test('a union explains itself by the option that the value was meant for', () => {
  const Choice = z.object({
    mode: z.discriminatedUnion('kind', [
      z.object({ kind: z.literal('one'), Port: z.int() }),
      z.object({ kind: z.literal('two') }),
    ]),
  });
  assert.equal(decodeConfig(Choice, { MODE: { KIND: 'one', port: 4 } }, 'choice'), {
    mode: { kind: 'one', Port: 4 },
  });
  assert.match(
    thrown(() => decodeConfig(Choice, { mode: { kind: 'one', port: '4' } }, 'choice')).message,
    '"mode.Port" must be a whole number, got "4" (string)',
  );
  assert.match(
    thrown(() => decodeConfig(Choice, { mode: { kind: 'six' } }, 'choice')).message,
    '"mode.kind" must be one of "one", "two", got "six"',
  );
});

test('long values are cut', () => {
  const error = thrown(() => decode(`{"isGateway":"${'x'.repeat(500)}"}`));
  assert.ok(error.message.length < 200, error.message);
});

test.run();
