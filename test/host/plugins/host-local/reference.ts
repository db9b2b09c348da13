import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { ProcessOutcome } from '../../../support/plugin.ts';

/** host-local of Debian's package containernetworking-plugins. */
export const REFERENCE = '/usr/lib/cni/host-local';

/** Why tests against the reference cannot run here; undefined when they can. */
export const referenceMissing: string | undefined = existsSync(REFERENCE)
  ? undefined
  : `${REFERENCE} is absent: apt-get install containernetworking-plugins`;

export function config(dataDir: string, ipam: object = { ranges: [[{ subnet: '10.1.2.0/24' }]] }): object {
  return {
    cniVersion: '0.4.0',
    name: 'net',
    type: 'host-local',
    ipam: { type: 'host-local', dataDir, ...ipam },
  };
}

export function runReference(command: string, id: string, stdin: object, ifname = 'eth0'): ProcessOutcome {
  const { status, stdout, stderr } = spawnSync(REFERENCE, {
    env: env(command, id, ifname),
    input: JSON.stringify(stdin),
    encoding: 'utf8',
  });
  return { exitCode: status, stdout, stderr };
}

export function startReference(
  command: string,
  id: string,
  stdin: object,
  ifname = 'eth0',
): Promise<ProcessOutcome> {
  const child = spawn(REFERENCE, { env: env(command, id, ifname) });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk));
  child.stdin.end(JSON.stringify(stdin));
  return new Promise((resolve, reject) => {
    child.on('error', reject).on('close', (exitCode) => resolve({ exitCode, stdout, stderr }));
  });
}

function env(command: string, id: string, ifname: string): Record<string, string> {
  return {
    CNI_COMMAND: command,
    CNI_CONTAINERID: id,
    CNI_NETNS: '/none',
    CNI_IFNAME: ifname,
    CNI_PATH: '/usr/lib/cni',
  };
}

/** The one address of an ADD that must have succeeded, without prefix length. */
export function addressOf(outcome: ProcessOutcome): string {
  if (outcome.exitCode !== 0) throw new Error(`ADD failed: ${outcome.stdout}${outcome.stderr}`);
  const { ips } = JSON.parse(outcome.stdout) as { ips: { address: string }[] };
  return ips.map(({ address }) => address.split('/')[0] as string).join();
}
