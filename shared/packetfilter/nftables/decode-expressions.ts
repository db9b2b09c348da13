/** Expressions as the kernel lists them: told apart without understanding them. */
import { attributeOf, attributesOf, textOf } from './nlattr.ts';

export interface RawExpression {
  readonly name: string;
  readonly data: Buffer;
}

/** @param element the payload of one NFTA_LIST_ELEM */
export function parseExpression(element: Buffer): RawExpression {
  return {
    name: textOf(attributeOf(element, 1) ?? Buffer.alloc(0)),
    data: attributeOf(element, 2) ?? Buffer.alloc(0),
  };
}

/**
 * Equal but for what the kernel adds or counts: it fills the counters, and answers with more attributes than it was given
 * (a bitwise operation, for example). Expression by expression: name, and every attribute that ours has.
 */
export function sameExpressions(ours: Buffer, theirs: Buffer): boolean {
  const left = attributesOf(ours).map(([, element]) => parseExpression(element));
  const right = attributesOf(theirs).map(([, element]) => parseExpression(element));
  return (
    left.length === right.length && left.every((expression, at) => sameExpression(expression, right[at]))
  );
}

function sameExpression(ours: RawExpression, theirs: RawExpression | undefined): boolean {
  if (ours.name !== theirs?.name) return false;
  if (ours.name === 'counter') return true;
  return attributesOf(ours.data).every(([type, value]) => {
    const other = attributeOf(theirs.data, type);
    return (
      other !== undefined && comparable(ours.name, type, value).equals(comparable(ours.name, type, other))
    );
  });
}

/** The nested flag of an attribute's type is given or not; its payload is what counts. */
function comparable(name: string, type: number, value: Buffer): Buffer {
  const isValue =
    (name === 'cmp' && type === 3) || (name === 'bitwise' && type >= 4) || (name === 'range' && type >= 3);
  return isValue
    ? (attributeOf(value, 1) ?? value)
    : name === 'immediate' && type === 2
      ? verdictBytes(value)
      : value;
}

function verdictBytes(data: Buffer): Buffer {
  const inner = attributeOf(data, 2) ?? Buffer.alloc(0);
  return Buffer.concat([attributeOf(inner, 1) ?? Buffer.alloc(0), attributeOf(inner, 2) ?? Buffer.alloc(0)]);
}
