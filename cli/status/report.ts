import { connect } from 'node:net';
import * as z from 'zod/mini';
import manifest from '../../package.json' with { type: 'json' };
import { SOCKET_PATH } from '../../agent/server.ts';
import { readRelease } from '../../shared/assets.ts';
import { inventory, type InventoryEntry } from '../../shared/attachments/inventory.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import { readNodeConfig } from '../../shared/config/node-config.ts';
import { healthOf } from '../attachments/health.ts';
import { poolsOf } from '../../shared/ipam/pools.ts';
import { missingOnHost } from '../attachments/missing.ts';
import { viewOf, viewSchema } from '../attachments/view.ts';
import type { Progress } from '../terminal.ts';

/** What `weft status --json` prints. */
export const statusSchema = z.strictObject({
  version: z.string(),
  time: z.string(),
  networks: z.array(
    z.strictObject({
      name: z.string(),
      /** Null where no list with a bridge is known. */
      bridge: z.nullable(z.string()),
      attachments: z.int(),
      pools: z.array(z.strictObject({ subnet: z.string(), size: z.nullable(z.number()), used: z.int() })),
    }),
  ),
  attachments: z.array(
    z.extend(viewSchema, {
      health: z.enum(['ok', 'warning', 'failed', 'unchecked']),
      problems: z.array(z.string()),
      warnings: z.array(z.string()),
    }),
  ),
  /** Of /etc/weft/weft.json; null if the file is invalid. */
  policy: z.nullable(
    z.strictObject({
      isolation: z.enum(['none', 'network', 'allocation']),
      deny: z.array(z.string()),
      allow: z.array(z.string()),
    }),
  ),
  agent: z.strictObject({
    state: z.enum(['running', 'not running', 'other release']),
    release: z.nullable(z.string()),
  }),
  /** What the running attachments need and the host lacks, as `weft repair` sees it; null with --no-check. */
  drift: z.nullable(z.array(z.string())),
  /** What concerns the node as a whole. */
  problems: z.array(z.string()),
});

export type Status = z.output<typeof statusSchema>;

/** @param check whether to run CHECK; without it every attachment is `unchecked` */
export async function readStatus({
  check,
  progress,
}: {
  readonly check: boolean;
  readonly progress: Progress;
}): Promise<Status> {
  const entries = inventory();
  const attachments: Status['attachments'] = [];
  for (const [at, entry] of entries.entries()) {
    progress.step(`checking ${at + 1} of ${entries.length}: ${entry.containerId}`);
    const { state: health, problems, warnings } = check ? await healthOf(entry) : UNCHECKED;
    attachments.push({
      ...viewOf(entry),
      health,
      problems: [...problems],
      warnings: [...warnings],
    });
  }
  progress.step('comparing the rules of the host');
  const drift = check ? await missingOnHost(entries, { settings: true }) : undefined;
  progress.done();
  const problems: string[] = [...(drift?.problems ?? [])];
  return {
    version: manifest.version,
    time: new Date().toISOString(),
    networks: networksOf(entries),
    attachments,
    policy: policyOf(problems),
    agent: await agentStatus(),
    drift: drift === undefined ? null : [...drift.pieces],
    problems,
  };
}

const UNCHECKED = { state: 'unchecked', problems: [], warnings: [] } as const;

function networksOf(entries: readonly InventoryEntry[]): Status['networks'] {
  return [...Map.groupBy(entries, ({ network }) => network)].map(([name, own]) => {
    const bridge = own
      .flatMap(({ plugins }) => plugins.filter(({ type }) => type === 'bridge'))
      .map((plugin) => plugin['bridge'] ?? 'cni0')
      .at(-1);
    return {
      name,
      bridge: typeof bridge === 'string' ? bridge : null,
      attachments: own.length,
      pools: poolsOf(own),
    };
  });
}

function policyOf(problems: string[]): Status['policy'] {
  try {
    const { isolation = 'none', egress } = readNodeConfig();
    return { isolation, deny: [...(egress?.deny ?? [])], allow: [...(egress?.allow ?? [])] };
  } catch (thrown) {
    problems.push(toCniError(thrown).message);
    return null;
  }
}

/** The agent greets a connection with the release that it serves. */
function agentStatus(): Promise<Status['agent']> {
  return new Promise((resolve) => {
    const absent = { state: 'not running', release: null } as const;
    const socket = connect(SOCKET_PATH);
    socket.setTimeout(AGENT_LIMIT_MS, () => socket.destroy());
    socket.on('error', () => resolve(absent)).on('close', () => resolve(absent));
    socket.once('data', (greeting) => {
      const [, release] = /^weft-agent \d+ (\S+)/.exec(greeting.toString('latin1')) ?? [];
      socket.destroy();
      if (release === undefined) resolve(absent);
      else resolve({ state: release === readRelease() ? 'running' : 'other release', release });
    });
  });
}

const AGENT_LIMIT_MS = 500;
