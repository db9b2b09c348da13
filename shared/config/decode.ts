import * as z from 'zod/mini';
import { CniCode, CniError } from '../cni/errors.ts';
import { TextWithNul } from './json.ts';
import { joinProblems, quote, sentences } from './sentences.ts';

/**
 * A plugin's settings, or everything that is wrong with its configuration. ADD, CHECK and STATUS reject problems; DEL and GC
 * must clean up whatever the configuration says by now, and work with `partial`.
 */
export type Configured<Settings> =
  | { readonly settings: Settings }
  | {
      /** One sentence each: key, rule, value given. */
      readonly problems: readonly string[];
      /** The keys that are valid on their own. An absent key may have been given and be invalid. */
      readonly partial: Partial<Settings>;
    };

/**
 * @param name of the plugin
 * @throws CniError 7 naming every problem
 */
export function requireSettings<Settings>(name: string, configured: Configured<Settings>): Settings {
  if ('settings' in configured) return configured.settings;
  throw new CniError(
    CniCode.InvalidNetworkConfig,
    `invalid ${name} configuration: ${joinProblems(configured.problems)}`,
  );
}

/** For DEL and GC: what is valid. */
export function usableSettings<Settings>(configured: Configured<Settings>): Partial<Settings> {
  return 'settings' in configured ? configured.settings : configured.partial;
}

/** {@link Configured} before a plugin makes its own shape of the decoded document. */
export type Decoded<Schema extends z.core.$ZodType> =
  | { readonly value: z.core.output<Schema> }
  | { readonly problems: readonly string[]; readonly partial: DeepPartial<z.core.output<Schema>> };

export type DeepPartial<T> = T extends readonly unknown[]
  ? T
  : T extends object
    ? { [Key in keyof T]?: DeepPartial<T[Key]> }
    : T;

/**
 * A plugin's configuration as `schema` describes it, or its problems and every member that is valid on its own, at any depth
 * of objects. Keys are matched as by {@link decodeConfig}.
 */
export function decodeSettings<S extends Schema>(schema: S, raw: unknown): Decoded<S> {
  const folded = foldKeys(schema, raw);
  const parsed = parse(schema, folded);
  if ('value' in parsed) return parsed;
  return {
    problems: parsed.problems,
    partial: validMembers(schema, folded) as DeepPartial<z.core.output<S>>,
  };
}

/**
 * `raw` as `schema` describes it, defaults filled in. Keys are matched in any case and nulls count as absent, at every
 * depth that the schema describes, as Go's decoder does; keys that the schema does not name are ignored.
 * Throws CniError 7 naming every problem: key, rule, value given.
 * @param raw what was parsed by json.ts
 * @param what the thing decoded, for the message: `bridge configuration`
 */
export function decodeConfig<S extends Schema>(schema: S, raw: unknown, what: string): z.core.output<S> {
  return decodeAs(schema, raw, CniCode.InvalidNetworkConfig, `invalid ${what}`);
}

/**
 * The same for documents whose contract asks for another code.
 * @param beginning of the error's message
 */
export function decodeAs<S extends Schema>(
  schema: S,
  raw: unknown,
  code: number,
  beginning: string,
): z.core.output<S> {
  const parsed = parse(schema, foldKeys(schema, raw));
  if ('value' in parsed) return parsed.value;
  throw new CniError(code, `${beginning}: ${joinProblems(parsed.problems)}`);
}

type Schema = z.core.$ZodType;

function parse<S extends Schema>(
  schema: S,
  folded: unknown,
): { readonly value: z.core.output<S> } | { readonly problems: readonly string[] } {
  const problem = tooManyEntries(folded);
  if (problem !== undefined) return { problems: [problem] };
  try {
    const parsed = z.safeParse(schema, folded);
    if (parsed.success) return { value: parsed.data };
    return { problems: sentences(parsed.error.issues, folded) };
  } catch (thrown) {
    // zod passes the issues of a list on as arguments of a call; more than about 100,000 exhaust the stack.
    if (!(thrown instanceof RangeError)) throw thrown;
    return { problems: ['the document has more than 100,000 invalid members'] };
  }
}

/** More than any real document has in its lists together; zod needs up to 10 µs for each that is invalid. */
const MOST_ENTRIES = 100_000;

/** The problem of a document whose lists are too long, naming the one that goes beyond the limit. */
function tooManyEntries(document: unknown): string | undefined {
  let entries = 0;
  const walk = (value: unknown, path: readonly string[]): string | undefined => {
    if (!Array.isArray(value)) {
      if (!isObject(value)) return undefined;
      for (const [key, member] of Object.entries(value)) {
        const problem = walk(member, [...path, key]);
        if (problem !== undefined) return problem;
      }
      return undefined;
    }
    entries += value.length;
    if (entries > MOST_ENTRIES)
      return `${quote(path)} has too many entries; all lists together may have at most ${MOST_ENTRIES}`;
    for (const entry of value) {
      const problem = walk(entry, path);
      if (problem !== undefined) return problem;
    }
    return undefined;
  };
  return walk(document, []);
}

function validMembers(schema: Schema, value: unknown): unknown {
  const { def } = (schema as z.core.$ZodTypes)._zod;
  if (def.type === 'optional' || def.type === 'default') return validMembers(def.innerType, value);
  if (def.type !== 'object' || typeof value !== 'object' || value === null) return {};
  const members = Object.entries(def.shape).flatMap(([key, member]): [string, unknown][] => {
    const given = (value as Record<string, unknown>)[key];
    const parsed = parse(member, given);
    if ('value' in parsed) return parsed.value === undefined ? [] : [[key, parsed.value]];
    const valid = validMembers(member, given);
    return typeof valid === 'object' && Object.keys(valid ?? {}).length > 0 ? [[key, valid]] : [];
  });
  return Object.fromEntries(members);
}

/**
 * A copy of `value` whose keys are spelled as `schema` spells them, and whose nulls are removed, as deep as the schema goes.
 * Unknown keys are left out where the schema ignores them, unless `keepUnknown` (another option of a union may know them).
 * Go matches keys in any case, the last one of several counts, and null leaves a field untouched: runtimes written in Go
 * rely on it (`HostPort` of Nomad, `RuntimeConfig` of the reference's own tests).
 */
export function foldKeys(schema: Schema, value: unknown, keepUnknown = false): unknown {
  const { def } = (schema as z.core.$ZodTypes)._zod;
  switch (def.type) {
    case 'string':
      return typeof value === 'string' && value.includes('\0') ? new TextWithNul(value) : value;
    case 'object':
      return isObject(value) ? foldObject(def, value, keepUnknown) : value;
    case 'array':
      return Array.isArray(value) ? value.map((entry) => foldKeys(def.element, entry)) : value;
    case 'tuple':
      return Array.isArray(value) ? value.map((entry, at) => foldTupleEntry(def, entry, at)) : value;
    case 'record':
      return isObject(value) ? foldRecord(def.valueType, value) : value;
    case 'optional':
    case 'nullable':
    case 'default':
    case 'prefault':
    case 'readonly':
    case 'catch':
    case 'nonoptional':
      return foldKeys(def.innerType, value, keepUnknown);
    case 'pipe':
      return foldKeys(kind(def.in) === 'transform' ? def.out : def.in, value, keepUnknown);
    case 'lazy':
      return foldKeys(def.getter(), value, keepUnknown);
    case 'union':
      return foldUnion(def.options, value);
    case 'intersection':
      return foldKeys(def.right, foldKeys(def.left, value, true), true);
    default:
      return value;
  }
}

function foldObject({ shape, catchall }: z.core.$ZodObjectDef, value: object, keepUnknown: boolean): unknown {
  const names = namesOf(shape);
  const folded = new Map<string, unknown>();
  for (const key of Object.keys(value)) {
    const name = names.get(key.toLowerCase());
    // Without a schema for unknown keys, they are ignored: not copied, because there may be very many.
    if (name === undefined && catchall === undefined && !keepUnknown) continue;
    const member = (value as Record<string, unknown>)[key];
    const schema = name === undefined ? catchall : shape[name];
    if (name !== undefined && member === null && !takesNull(schema)) continue;
    folded.set(name ?? key, schema === undefined ? member : foldKeys(schema, member));
  }
  return Object.fromEntries(folded);
}

/** The shape's keys by their spelling in small letters. */
function namesOf(shape: object): ReadonlyMap<string, string> {
  let names = NAMES.get(shape);
  if (names === undefined) {
    names = new Map(Object.keys(shape).map((name) => [name.toLowerCase(), name]));
    NAMES.set(shape, names);
  }
  return names;
}

const NAMES = new WeakMap<object, ReadonlyMap<string, string>>();

function foldRecord(valueType: Schema, value: object): unknown {
  const present = Object.entries(value).filter(([, member]) => member !== null || takesNull(valueType));
  return Object.fromEntries(present.map(([key, member]) => [key, foldKeys(valueType, member)]));
}

function foldTupleEntry({ items, rest }: z.core.$ZodTupleDef, entry: unknown, at: number): unknown {
  const schema = items[at] ?? rest;
  return schema === null ? entry : foldKeys(schema, entry);
}

/** Which option an object will turn out to be is not known yet: the keys of all of them are folded. */
function foldUnion(options: readonly Schema[], value: unknown): unknown {
  return options.reduce((folded, option) => foldKeys(option, folded, true), value);
}

function takesNull(schema: Schema | undefined): boolean {
  return schema !== undefined && ['nullable', 'null'].includes(kind(schema));
}

function kind(schema: Schema): string {
  return (schema as z.core.$ZodTypes)._zod.def.type;
}

/** Plain objects of the parsed text only: a Decimal stays itself. */
function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}
