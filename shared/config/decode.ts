import * as z from 'zod/mini';
import { CniCode, CniError } from '../cni/errors.ts';
import { foldKeys } from './fold.ts';
import { sentences } from './messages.ts';

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
  throw new CniError(code, `${beginning}: ${sentences(parsed.error.issues, folded).join('; ')}`);
}
