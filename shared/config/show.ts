import { Decimal } from './json.ts';

const SHOWN_CHARACTERS = 80;

/** A value as an error message shows it: as JSON, cut when it is long. */
export function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value instanceof Decimal) return value.source.slice(0, SHOWN_CHARACTERS);
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) return typeof value;
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}...` : text;
}
