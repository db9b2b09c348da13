import { readFileSync } from 'node:fs';
import hcl2 from 'hcl2-parser';

/** Its own type declarations are of no use: functions outside of the module. */
const parser = hcl2 as { parseToObject(text: string): [HclBody | null, unknown] };

/**
 * A file of HCL 2 as Nomad and Consul read it. Each block is an array of its bodies, below its labels; attributes keep their values, and
 * expressions are text: `${attr.kernel.name}`. Throws with the place of the first syntax error.
 */
export function parseHcl(file: string): HclBody {
  const [body, error] = parser.parseToObject(readFileSync(file, 'utf8'));
  if (body !== null && (error === null || error === undefined)) return body;
  throw new Error(`${file}: ${JSON.stringify(error)}`);
}

export interface HclBody {
  readonly [name: string]: HclValue;
}
export type HclValue = string | number | boolean | HclBody | readonly HclValue[];

/** The value at a path of names; blocks that occur once need no index. */
export function hclAt(body: HclValue | undefined, ...path: readonly string[]): HclValue | undefined {
  const only = Array.isArray(body) && body.length === 1 ? (body[0] as HclValue) : body;
  const [name, ...rest] = path;
  if (name === undefined) return only;
  return hclAt((only as HclBody | undefined)?.[name], ...rest);
}
