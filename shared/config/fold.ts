import type * as z from 'zod/mini';

type Schema = z.core.$ZodType;

/**
 * A copy of `value` whose keys are spelled as `schema` spells them, and whose nulls are gone, as deep as the schema goes.
 * Go matches keys in any case, the last one of several counts, and null leaves a field untouched: runtimes written in Go
 * rely on it (`HostPort` of Nomad, `RuntimeConfig` of the reference's own tests).
 */
export function foldKeys(schema: Schema, value: unknown): unknown {
  const { def } = (schema as z.core.$ZodTypes)._zod;
  switch (def.type) {
    case 'object':
      return isObject(value) ? foldObject(def, value) : value;
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
      return foldKeys(def.innerType, value);
    case 'pipe':
      return foldKeys(kind(def.in) === 'transform' ? def.out : def.in, value);
    case 'lazy':
      return foldKeys(def.getter(), value);
    case 'union':
      return foldUnion(def.options, value);
    case 'intersection':
      return foldKeys(def.right, foldKeys(def.left, value));
    default:
      return value;
  }
}

function foldObject({ shape, catchall }: z.core.$ZodObjectDef, value: object): unknown {
  const names = new Map(Object.keys(shape).map((name) => [name.toLowerCase(), name]));
  const folded = new Map<string, unknown>();
  for (const [key, member] of Object.entries(value)) {
    const name = names.get(key.toLowerCase());
    const schema = name === undefined ? catchall : shape[name];
    if (name !== undefined && member === null && !takesNull(schema)) continue;
    folded.set(name ?? key, schema === undefined ? member : foldKeys(schema, member));
  }
  return Object.fromEntries(folded);
}

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
  return options.reduce((folded, option) => foldKeys(option, folded), value);
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
