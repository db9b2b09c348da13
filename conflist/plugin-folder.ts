import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Nomad's default `cni_path`, and where the README puts the plugins. */
export const USUAL_FOLDER = '/opt/cni/bin';

/**
 * Where the plugins are unless the user says otherwise: beside this executable, or, when it was installed alone into a folder of PATH,
 * where Nomad has them. A name that only the plugins have decides: /usr/sbin has a `bridge` of iproute2.
 */
export function pluginFolder(): string {
  const own = dirname(process.execPath);
  return existsSync(join(own, 'host-local')) ? own : USUAL_FOLDER;
}
