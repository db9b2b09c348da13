import * as z from 'zod/mini';

/** One entry of vlanTrunk: one VLAN by `id`, or `minID` to `maxID` inclusive; both forms in one entry add up. */
export const trunkSchema = z.array(
  z
    .object({
      id: z.optional(vlanId('incorrect trunk id parameter')),
      minID: z.optional(vlanId('incorrect trunk minID parameter')),
      maxID: z.optional(vlanId('incorrect trunk maxID parameter')),
    })
    .check(
      z.refine((entry) => entry.minID !== undefined || entry.maxID === undefined, {
        error: 'minID and maxID should be configured simultaneously, minID is missing',
      }),
      z.refine((entry) => entry.maxID !== undefined || entry.minID === undefined, {
        error: 'minID and maxID should be configured simultaneously, maxID is missing',
      }),
      z.refine(({ minID, maxID }) => minID === undefined || maxID === undefined || minID <= maxID, {
        error: 'minID is greater than maxID in trunk parameter',
      }),
    ),
);

/** The host's own interface in a VLAN, as the reference calls it; `configure` makes sure that it is short enough for a link. */
export function vlanGatewayName(bridge: string, vlan: number): string {
  return `${bridge}.${vlan}`;
}

/** Every VLAN of the trunk once, ascending. */
export function expandTrunk(trunk: z.output<typeof trunkSchema>): number[] {
  const ids = trunk.flatMap(({ id, minID, maxID }) => [
    ...(id === undefined ? [] : [id]),
    ...(minID === undefined || maxID === undefined ? [] : range(minID, maxID)),
  ]);
  return [...new Set(ids)].sort((one, other) => one - other);
}

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, at) => first + at);
}

function vlanId(error: string): z.ZodMiniNumber {
  return z.int().check(z.gte(1, { error }), z.lte(4094, { error }));
}
