import * as assert from 'uvu/assert';
import type { Case } from './cases.ts';

/** What came of a call. */
export interface Answer {
  readonly exitCode: number | null;
  readonly out: string;
  readonly err: string;
}

const CODES = [1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51, 999];
/** Words of the language that a plugin is written in. */
const LANGUAGE =
  /bug in the|is not a function|is not iterable|Cannot (read|convert|destructure|mix)|call stack|\[object |\bundefined\b|\bNaN\b|ERR_[A-Z]+|unexpected token|\n\s+at |Node\.js v|FATAL ERROR/;

/**
 * Whatever a runtime sends, a plugin answers with one JSON document and a code of the contract, or with nothing and success.
 * @returns the verb that succeeded, or the error's code
 * @throws an assertion error
 */
export function judge({ environment }: Case, { exitCode, out, err }: Answer): string {
  assert.not.match(out + err, LANGUAGE);
  const command = environment['CNI_COMMAND'] ?? '';
  if (exitCode === 0) {
    if (command === 'ADD' || command === 'VERSION')
      assert.type((JSON.parse(out) as { cniVersion: unknown }).cniVersion, 'string');
    else assert.is(out, '');
    return command;
  }
  assert.is(exitCode, 1, err);
  const { code, msg, details } = JSON.parse(out) as { code: number; msg: string; details?: string };
  assert.ok(CODES.includes(code), `code ${code}`);
  assert.type(msg, 'string');
  assert.ok(msg.length > 0 && msg.length <= 4003, 'a message of some length');
  assert.ok(details === undefined || (typeof details === 'string' && details.length < 20_000));
  if (command === 'DEL') assert.not.match(out, /not found/i);
  return String(code);
}

/** A case and its answer for a report, long texts cut. */
export function describe(one: Case, answer: Answer | undefined): string {
  return JSON.stringify({ ...one, ...answer }, (_, value: unknown) => cut(value), 1);
}

function cut(value: unknown): unknown {
  return typeof value === 'string' && value.length > 2500
    ? `${value.slice(0, 2500)}... (${value.length})`
    : value;
}
