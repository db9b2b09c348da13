import type * as z from 'zod/mini';
import { Decimal, show, TextWithNul } from './json.ts';

type Issue = z.core.$ZodIssue;

/**
 * Each issue as a sentence: the key's path, the rule, the value given.
 * An author's own message on a schema is the rule's text (`must not be a multicast address`), a remark about the key
 * (`a link name has at most 15 bytes`), or, beginning with `"`, the whole sentence.
 * @param input the value that was validated, to which the issues' paths refer
 * @returns at most {@link MAX_SENTENCES}
 */
export function sentences(issues: readonly Issue[], input: unknown): string[] {
  const found = new Set<string>();
  for (const issue of issues) {
    for (const text of sentence(issue, input, [])) found.add(text);
    if (found.size >= MAX_SENTENCES) break;
  }
  return [...found].slice(0, MAX_SENTENCES);
}

const MAX_SENTENCES = 1000;

/** A runtime's log shows a screenful; an operator who corrects these sees the next ones. */
const SHOWN_PROBLEMS = 12;

/** `problems` as one text, cut to a screenful. */
export function joinProblems(problems: readonly string[]): string {
  const shown = problems.slice(0, SHOWN_PROBLEMS).join('; ');
  const more = problems.length - SHOWN_PROBLEMS;
  if (more <= 0) return shown;
  return `${shown}; and ${problems.length >= MAX_SENTENCES ? 'at least ' : ''}${more} more`;
}

function sentence(issue: Issue, input: unknown, above: readonly PropertyKey[]): string[] {
  const path = [...above, ...issue.path];
  const value = valueAt(input, path);
  const said = issue.message === 'Invalid input' ? undefined : issue.message;
  if (said?.startsWith('"') === true) return [said];
  if (said === undefined && issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => `${quote([...path, key])} is not known`);
  }
  if (said === undefined && issue.code === 'invalid_union') {
    const closest = closestOption(issue);
    if (closest !== undefined) return closest.flatMap((inner) => sentence(inner, input, path));
  }
  if (value === undefined && (said === undefined || isMissing(issue))) return [`${quote(path)} is required`];
  const text = said ?? rule(issue);
  const shown = show(value);
  const subject = PREDICATE.test(text) ? quote(path) : `${quote(path)}:`;
  if (said?.includes(shown) === true) return [`${subject} ${text}`];
  const withKind = issue.code === 'invalid_type' || issue.code === 'invalid_union';
  return [`${subject} ${text}, got ${shown}${withKind ? kindOf(value) : ''}`];
}

/** Rules that continue the sentence after the key's name; others stand behind a colon. */
const PREDICATE =
  /^(must|is|are|has|have|does|do|cannot|can|may|needs|should|would|contains|names|lies|comes) /;

function isMissing(issue: Issue): boolean {
  return issue.code === 'invalid_type' && issue.expected !== 'nonoptional';
}

function rule(issue: Issue): string {
  switch (issue.code) {
    case 'invalid_type':
      return `must be ${typeName(issue.expected)}`;
    case 'invalid_value':
      return `must be ${oneOf(issue.values)}`;
    case 'too_small':
      return sizeRule(issue.origin, Number(issue.minimum), issue.exact ? '' : 'at least ', issue.inclusive);
    case 'too_big':
      return sizeRule(issue.origin, Number(issue.maximum), issue.exact ? '' : 'at most ', issue.inclusive);
    case 'not_multiple_of':
      return `must be a multiple of ${issue.divisor}`;
    case 'invalid_format':
      return `must be ${formatName(issue)}`;
    case 'invalid_union':
      return `must be ${unionRule(issue)}`;
    case 'invalid_key':
      return 'has a key that is not allowed';
    default:
      return 'is not valid';
  }
}

function sizeRule(origin: string, bound: number, least: string, inclusive: boolean | undefined): string {
  if (origin === 'string' || origin === 'array') {
    if (least === 'at least ' && bound === 1) return 'must not be empty';
    return `must have ${least}${bound} ${origin === 'string' ? 'characters' : 'entries'}`;
  }
  if (inclusive === false) return `must be ${least === 'at least ' ? 'greater' : 'less'} than ${bound}`;
  return `must be ${least}${bound}`;
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a whole number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  tuple: 'a list',
  object: 'an object',
  record: 'an object',
  null: 'null',
  never: 'left out',
  undefined: 'left out',
};

function typeName(expected: string): string {
  return TYPE_NAMES[expected] ?? expected;
}

function oneOf(values: readonly unknown[]): string {
  const shown = values.map((value) => show(value));
  return shown.length === 1 ? String(shown[0]) : `one of ${shown.join(', ')}`;
}

function formatName(issue: z.core.$ZodIssueInvalidStringFormat): string {
  const parts = issue as { prefix?: string; suffix?: string; includes?: string };
  if (parts.prefix !== undefined) return `a string that starts with ${show(parts.prefix)}`;
  if (parts.suffix !== undefined) return `a string that ends with ${show(parts.suffix)}`;
  if (parts.includes !== undefined) return `a string that contains ${show(parts.includes)}`;
  if (issue.format === 'regex') return `a string that matches ${issue.pattern}`;
  const names: Readonly<Record<string, string>> = {
    ipv4: 'an IPv4 address',
    ipv6: 'an IPv6 address',
    cidrv4: 'an IPv4 network like 10.0.0.0/24',
    cidrv6: 'an IPv6 network like fd00::/64',
  };
  return names[issue.format] ?? `a valid ${issue.format}`;
}

/** A value of the type of one option fails by that option's rules, which say more than "none of them". */
function closestOption(issue: z.core.$ZodIssueInvalidUnion): readonly Issue[] | undefined {
  const inside = issue.errors.filter((option) => !option.some(isAboutWhole));
  return inside.sort((one, other) => one.length - other.length)[0];
}

function isAboutWhole(issue: Issue): boolean {
  return issue.path.length === 0 && ['invalid_type', 'invalid_value', 'invalid_union'].includes(issue.code);
}

function unionRule(issue: z.core.$ZodIssueInvalidUnion): string {
  const options = 'options' in issue && Array.isArray(issue.options) ? issue.options : [];
  if (options.length > 0) return oneOf(options);
  const rules = issue.errors.flat().map((inner) => rule(inner).replace(/^must be /, ''));
  return [...new Set(rules)].join(' or ');
}

/** `"ipam.ranges[0][1].subnet"`; the document itself is `the document`. */
export function quote(path: readonly PropertyKey[]): string {
  if (path.length === 0) return 'the document';
  const text = path.reduce<string>((before, key) => {
    if (typeof key === 'number') return `${before}[${key}]`;
    return before === '' ? String(key) : `${before}.${String(key)}`;
  }, '');
  return `"${text}"`;
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    return (value as Record<PropertyKey, unknown>)[key];
  }, input);
}

function kindOf(value: unknown): string {
  if (value === undefined || value === null || typeof value === 'boolean') return '';
  if (Array.isArray(value)) return ' (list)';
  if (value instanceof Decimal) return ' (number)';
  if (value instanceof TextWithNul) return ' (string with a NUL character)';
  return ` (${typeof value})`;
}
