import { existsSync, statSync } from 'node:fs';
import { NODE_CONFIG_FILE } from '../config/node-config.ts';
import { RESULTS_DIR } from './cached-results.ts';

/**
 * Whether /etc/weft/weft.json is certainly what the attachment's last ADD read: it was put in place before that ADD, whose end is the time
 * of the result that the runtime cached. CHECK must not fail because of a policy that came later.
 */
export function isNodeConfigOfAdd({
  network,
  containerId,
  ifname,
}: {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string;
}): boolean {
  const cached = statSync(`${RESULTS_DIR}/${network}-${containerId}-${ifname}`, { throwIfNoEntry: false });
  const config = statSync(NODE_CONFIG_FILE, { throwIfNoEntry: false });
  // The time of the last change of content, name or owner, which `cp -p` and packages cannot set to an earlier one.
  return cached !== undefined && config !== undefined && config.ctimeMs < cached.mtimeMs - LONGEST_ADD_MS;
}

/** Whether the file may have changed since: the rules may be in another back end than the one that it names now. */
export function mayHaveChangedSinceAdd(attachment: Parameters<typeof isNodeConfigOfAdd>[0]): boolean {
  return existsSync(NODE_CONFIG_FILE) && !isNodeConfigOfAdd(attachment);
}

/** An ADD reads the file at its beginning; no runtime waits longer for one. */
const LONGEST_ADD_MS = 60_000;
