import * as z from 'zod/mini';
import { CniCode, CniError } from '../cni/errors.ts';
import { foldKeys } from './fold.ts';
import { joinProblems, sentences } from './messages.ts';

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
export function decodeSettings<Schema extends z.core.$ZodType>(
  schema: Schema,
  raw: unknown,
): Decoded<Schema> {
  const folded = foldKeys(schema, raw);
  const parsed = z.safeParse(schema, folded);
  if (parsed.success) return { value: parsed.data };
  return {
    problems: sentences(parsed.error.issues, folded),
    partial: validMembers(schema, folded) as DeepPartial<z.core.output<Schema>>,
  };
}

function validMembers(schema: z.core.$ZodType, value: unknown): unknown {
  const { def } = (schema as z.core.$ZodTypes)._zod;
  if (def.type === 'optional' || def.type === 'default') return validMembers(def.innerType, value);
  if (def.type !== 'object' || typeof value !== 'object' || value === null) return {};
  const members = Object.entries(def.shape).flatMap(([key, member]): [string, unknown][] => {
    const given = (value as Record<string, unknown>)[key];
    const parsed = z.safeParse(member, given);
    if (parsed.success) return parsed.data === undefined ? [] : [[key, parsed.data]];
    const valid = validMembers(member, given);
    return typeof valid === 'object' && Object.keys(valid ?? {}).length > 0 ? [[key, valid]] : [];
  });
  return Object.fromEntries(members);
}

/**
 * `raw` as `schema` describes it, defaults filled in. Keys are matched in any case and nulls count as absent, at every
 * depth that the schema describes, as Go's decoder does; keys that the schema does not name are ignored.
 * Throws CniError 7 naming every problem: key, rule, value given.
 * @param raw what was parsed by json.ts
 * @param what the thing decoded, for the message: `bridge configuration`
 */
export function decodeConfig<Schema extends z.core.$ZodType>(
  schema: Schema,
  raw: unknown,
  what: string,
): z.core.output<Schema> {
  return decodeAs(schema, raw, CniCode.InvalidNetworkConfig, `invalid ${what}`);
}

/**
 * The same for documents whose contract asks for another code.
 * @param beginning of the error's message
 */
export function decodeAs<Schema extends z.core.$ZodType>(
  schema: Schema,
  raw: unknown,
  code: number,
  beginning: string,
): z.core.output<Schema> {
  const folded = foldKeys(schema, raw);
  const parsed = z.safeParse(schema, folded);
  if (parsed.success) return parsed.data;
  throw new CniError(code, `${beginning}: ${joinProblems(sentences(parsed.error.issues, folded))}`);
}
