import { CniCode, CniError } from '../cni/errors.ts';

/**
 * A number of the text that is no plain whole number (`1.0`, `1e3`, or too big to be exact). Go refuses those for integers,
 * and JSON.parse would make them look like one; so they stay what they were, and are written again as they were.
 */
export class Decimal {
  readonly source: string;

  constructor(source: string) {
    this.source = source;
  }

  toJSON(): unknown {
    return (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(this.source);
  }
}

/**
 * One JSON document, nothing after it. Throws CniError 6.
 * @param what begins the error's message
 */
export function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text, keepDecimals as (key: string, value: unknown) => unknown);
  } catch (thrown) {
    throw new CniError(CniCode.DecodingFailure, `${what}: ${reason(text, thrown)}`, { cause: thrown });
  }
}

function keepDecimals(_key: string, value: unknown, context: { source?: string }): unknown {
  if (typeof value !== 'number' || context.source === undefined) return value;
  const whole = /^-?\d+$/.test(context.source) && Number.isSafeInteger(value);
  return whole ? value + 0 : new Decimal(context.source);
}

function reason(text: string, thrown: unknown): string {
  if (text.trim() === '') return 'unexpected end of JSON input (it is empty)';
  if (thrown instanceof RangeError) return 'it is nested too deeply';
  return thrown instanceof Error ? thrown.message : String(thrown);
}
