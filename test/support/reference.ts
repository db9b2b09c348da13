import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { PluginName } from './executables.ts';
import { variables, type Attachment } from './plugin.ts';

/** Where Debian's containernetworking-plugins puts the reference. */
const FOLDER = '/usr/lib/cni';

/** Why tests beside the reference cannot run here; undefined when they can. */
export function referenceMissing(name: PluginName): string | undefined {
  return existsSync(`${FOLDER}/${name}`)
    ? undefined
    : `${FOLDER}/${name} is not installed (apt-get install containernetworking-plugins)`;
}

/** One call of the reference that must succeed. */
export function runReference(
  name: PluginName,
  command: string,
  attachment: Attachment,
  config: object,
): void {
  const { status, stdout, stderr } = spawnSync(`${FOLDER}/${name}`, {
    env: { PATH: '/usr/sbin:/usr/bin', CNI_COMMAND: command, ...variables({ ...attachment, path: FOLDER }) },
    input: JSON.stringify(config),
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`the reference's ${name} ${command} failed: ${stdout}${stderr}`);
}
