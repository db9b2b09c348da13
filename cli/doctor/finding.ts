import * as z from 'zod/mini';
import { CATALOG, GROUPS, type FindingId, type Group } from './catalog.ts';

/** Something that is wrong on this host. Its level and why it matters are in the catalog. */
export interface Finding {
  readonly id: FindingId;
  /** The fact, with the value found. */
  readonly what: string;
  /** The object: a file, an interface, a chain, an allocation. */
  readonly where: string;
  /** Commands that end it, joined by `; `, or a sentence where it takes an editor. */
  readonly remedy: string;
  readonly fix?: Fix;
}

/** A change that cannot harm what runs, and that one command undoes. */
export interface Fix {
  /** The command that does the same. */
  readonly command: string;
  readonly undo: string;
  readonly apply: () => void;
}

/** One question about the host. It changes nothing, and throws when it cannot be answered; the error says why. */
export interface Check<Host> {
  /** What is not known when the check cannot run: `kernel features`. */
  readonly name: string;
  readonly group: Group;
  readonly run: (host: Host) => readonly Finding[] | Promise<readonly Finding[]>;
}

export interface NotChecked {
  readonly group: Group;
  readonly check: string;
  readonly reason: string;
}

export function levelOf({ id }: Finding): 'error' | 'warning' {
  return CATALOG[id].level;
}

/** `weft doctor --json`. */
export const reportSchema = z.strictObject({
  /** Of the suite. */
  version: z.string(),
  status: z.enum(['ok', 'warnings', 'errors']),
  findings: z.array(
    z.strictObject({
      id: z.enum(Object.keys(CATALOG) as [FindingId, ...FindingId[]]),
      group: z.enum(GROUPS),
      level: z.enum(['error', 'warning']),
      what: z.string(),
      where: z.string(),
      why: z.string(),
      remedy: z.string(),
      /** Whether `--fix` applies the remedy. */
      fixable: z.boolean(),
    }),
  ),
  notChecked: z.array(z.strictObject({ group: z.enum(GROUPS), check: z.string(), reason: z.string() })),
  /** Commands whose effect `--fix` had, and those that undo them. */
  fixed: z.array(z.strictObject({ id: z.string(), command: z.string(), undo: z.string() })),
  /** Null without ALLOC. */
  allocation: z.nullable(
    z.strictObject({
      id: z.string(),
      attachments: z.array(
        z.strictObject({
          network: z.string(),
          interface: z.nullable(z.string()),
          addresses: z.array(z.string()),
          state: z.enum(['running', 'gone', 'unknown']),
          reason: z.string(),
        }),
      ),
      /** What Nomad's documentation says to look at, in this order; without lines where the file does not exist. */
      files: z.array(
        z.strictObject({
          what: z.string(),
          path: z.string(),
          exists: z.boolean(),
          lastLines: z.array(z.string()),
        }),
      ),
    }),
  ),
});

export type Report = z.infer<typeof reportSchema>;
export type AllocationReport = NonNullable<Report['allocation']>;
