import { readdirSync, readFileSync } from 'node:fs';
import * as z from 'zod/mini';
import { parseCidr } from '../net/address.ts';

/** What libcni keeps of the last ADD of an attachment, as far as it tells who is alive and where. */
export interface KeptResult {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string;
  /** Path of the namespace; '' in files of libcni before 1.2. */
  readonly netns: string;
  /** With prefix length, as the plugins reported them. */
  readonly addresses: readonly string[];
}

/** libcni's folder unless the runtime chose another (Nomad, Podman and CRI-O do not; containerd does not keep results). */
export const RESULTS = '/var/lib/cni/results';

/** Results of every interface of a container on one network. Files that cannot be read are passed over: they only ever help. */
export function keptResults(network: string, containerId: string): KeptResult[] {
  return files(`${network}-${containerId}-`).flatMap((file) => {
    const kept = readKept(file);
    return kept?.network === network && kept.containerId === containerId ? [kept] : [];
  });
}

const Kept = z.object({
  containerId: z.string(),
  ifName: z.string(),
  networkName: z.string(),
  netns: z._default(z.string(), ''),
  result: z._default(z.object({ ips: z._default(z.array(z.object({ address: z.string() })), []) }), {
    ips: [],
  }),
});

function readKept(file: string): KeptResult | undefined {
  try {
    const kept = z.safeParse(Kept, JSON.parse(readFileSync(file, 'utf8')));
    if (!kept.success) return undefined;
    const { containerId, ifName, networkName, netns, result } = kept.data;
    const addresses = result.ips
      .map(({ address }) => address)
      .filter((text) => parseCidr(text) !== undefined);
    return { network: networkName, containerId, ifname: ifName, netns, addresses };
  } catch {
    return undefined;
  }
}

function files(prefix: string): string[] {
  try {
    return readdirSync(RESULTS)
      .filter((name) => name.startsWith(prefix))
      .map((name) => `${RESULTS}/${name}`);
  } catch {
    return [];
  }
}
