import { CniCode, CniError } from '../cni/errors.ts';

/**
 * A number of the text that is no plain whole number (`1.0`, `1e3`, or too large to be exact). Go rejects those for integers,
 * and JSON.parse would make them look like one; so they keep their text, and are written again as they were.
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
 * A string with a NUL character. The kernel and the file system end a name there, so nothing that a schema calls a string may
 * have one: folding puts this in its place, which no schema accepts.
 */
export class TextWithNul {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  toJSON(): string {
    return this.text;
  }
}

/** Deeper documents would exhaust the stack of whatever walks through them. Real ones have about ten levels. */
const DEPTH_LIMIT = 1000;

/**
 * One JSON document, nothing after it. Throws CniError 6.
 * @param what begins the error's message
 */
export function parseJson(text: string, what: string): unknown {
  const { depth, hasDecimals } = scan(text);
  if (depth > DEPTH_LIMIT) throw new CniError(CniCode.DecodingFailure, `${what}: it is nested too deeply`);
  try {
    // A reviver makes JSON.parse several times slower.
    if (!hasDecimals) return JSON.parse(text);
    return JSON.parse(text, keepDecimals as (key: string, value: unknown) => unknown);
  } catch (thrown) {
    throw new CniError(CniCode.DecodingFailure, `${what}: ${reason(text, thrown)}`, { cause: thrown });
  }
}

/** What is outside of strings: the depth of nesting, and whether a number may be no plain whole one. Text of any kind, in linear time. */
function scan(text: string): { depth: number; hasDecimals: boolean } {
  let depth = 0;
  let deepest = 0;
  let digits = 0;
  let hasDecimals = false;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code >= ZERO && code <= NINE) {
      digits += 1;
      // From 16 digits on a number may be too large to be exact.
      if (digits === 16 || (code === ZERO && text[at - 1] === '-')) hasDecimals = true;
      continue;
    }
    if (digits > 0 && (code === DOT || code === UPPER_E || code === LOWER_E)) hasDecimals = true;
    digits = 0;
    if (code === QUOTE) at = endOfString(text, at);
    else if (code === OPEN_BRACKET || code === OPEN_BRACE) deepest = Math.max(deepest, ++depth);
    else if (code === CLOSE_BRACKET || code === CLOSE_BRACE) depth -= 1;
  }
  return { depth: deepest, hasDecimals };
}

/** @returns the index of the closing quote, or of the last character */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text[end - 1 - backslashes] === '\\') backslashes += 1;
    if (backslashes % 2 === 0) return end;
  }
  return text.length - 1;
}

const QUOTE = 0x22;
const DOT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const UPPER_E = 0x45;
const LOWER_E = 0x65;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

function keepDecimals(_key: string, value: unknown, context: { source?: string }): unknown {
  if (typeof value !== 'number' || context.source === undefined) return value;
  const whole = /^-?\d+$/.test(context.source) && Number.isSafeInteger(value);
  return whole ? value + 0 : new Decimal(context.source);
}

function reason(text: string, thrown: unknown): string {
  if (text.trim() === '') return 'unexpected end of JSON input (it is empty)';
  return thrown instanceof Error ? thrown.message : String(thrown);
}

const SHOWN_CHARACTERS = 80;
/** More characters than are shown, so that the text is never longer than needed. */
const SHOWN_ENTRIES = 41;

/** A value as an error message shows it: as JSON, cut when it is long. */
export function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value instanceof Decimal) return value.source.slice(0, SHOWN_CHARACTERS);
  const text = JSON.stringify(beginning(value)) as string | undefined;
  if (text === undefined) return typeof value;
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}...` : text;
}

/** As much of a large value as can be shown: a million entries are not written out for the first 80 characters. */
function beginning(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return value.slice(0, SHOWN_CHARACTERS + 1);
  if (typeof value !== 'object' || value === null || value instanceof Decimal) return value;
  if (value instanceof TextWithNul) return beginning(value.text);
  if (depth > SHOWN_CHARACTERS) return null;
  if (Array.isArray(value)) return value.slice(0, SHOWN_ENTRIES).map((entry) => beginning(entry, depth + 1));
  const members: [string, unknown][] = [];
  for (const key in value) {
    if (members.length === SHOWN_ENTRIES) break;
    const member = (value as Record<string, unknown>)[key];
    members.push([key.slice(0, SHOWN_CHARACTERS + 1), beginning(member, depth + 1)]);
  }
  return Object.fromEntries(members);
}
