import { existsSync } from 'node:fs';
import { readRegularFile } from '../../shared/kernel/files.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import { UsageError } from '../../shared/config/command-line.ts';
import type { AllocationReport } from './finding.ts';
import type { Host } from './examined-host.ts';

/**
 * What Nomad's documentation tells to look at when a sidecar does not start ("Consul service mesh", troubleshooting): the logs of the
 * connect-proxy task and the files of Envoy's bootstrap, with their last lines.
 * @param prefix of the allocation id
 * @throws UsageError when no allocation, or more than one, has such an id
 */
export function allocationReport(host: Host, prefix: string): AllocationReport {
  const folders = host.options.nomadDataDirs.flatMap((dataDir) =>
    host.names(`${dataDir}/alloc`).map((id) => ({ id, folder: `${dataDir}/alloc/${id}` })),
  );
  const attachments = host.attachments();
  const known = [...attachments.map(({ containerId }) => containerId), ...folders.map(({ id }) => id)];
  const ids = [...new Set(known)].filter((id) => id.startsWith(prefix));
  const [id] = ids;
  if (id === undefined)
    throw new UsageError(
      `no allocation with id ${prefix} on this host (see: weft leases, nomad node status -self)`,
    );
  if (ids.length > 1)
    throw new UsageError(`several allocations begin with ${prefix}: ${ids.slice(0, 5).join(', ')}`);
  const folder =
    folders.find((one) => one.id === id)?.folder ?? `${host.options.nomadDataDirs[0] ?? ''}/alloc/${id}`;
  return {
    id,
    attachments: attachments
      .filter(({ containerId }) => containerId === id)
      .map(({ network, ifname, addresses, state, reason }) => ({
        network,
        interface: ifname ?? null,
        addresses: [...addresses],
        state,
        reason,
      })),
    files: filesOf(host, folder).map(({ what, path }) => ({
      what,
      path,
      exists: existsSync(path),
      lastLines: lastLines(path),
    })),
  };
}

interface File {
  readonly what: string;
  readonly path: string;
}

/** Where the allocation's folder is not readable, the paths that its files would have. */
function filesOf(host: Host, folder: string): File[] {
  const logs = `${folder}/alloc/logs`;
  const names = host.names(logs);
  const tasks = host.names(folder).filter((name) => /^connect-/.test(name));
  const found = tasks.length > 0 ? tasks : ['connect-proxy-SERVICE'];
  return found.flatMap((task): File[] => [
    { what: `standard error of ${task}`, path: `${logs}/${newest(names, `${task}.stderr.`)}` },
    { what: `standard output of ${task}`, path: `${logs}/${newest(names, `${task}.stdout.`)}` },
    { what: "errors of Envoy's bootstrap", path: `${logs}/envoy_bootstrap.stderr.0` },
    { what: "command of Envoy's bootstrap", path: `${folder}/${task}/secrets/.envoy_bootstrap.cmd` },
    { what: "environment of Envoy's bootstrap", path: `${folder}/${task}/secrets/.envoy_bootstrap.env` },
  ]);
}

/** Nomad rotates logs by their number. */
function newest(names: readonly string[], prefix: string): string {
  const numbers = names.flatMap((name) => {
    const number = name.startsWith(prefix) ? Number(name.slice(prefix.length)) : Number.NaN;
    return Number.isInteger(number) ? [number] : [];
  });
  return `${prefix}${Math.max(0, ...numbers)}`;
}

const SHOWN_LINES = 8;
const LONGEST_LINE = 300;
/** Nomad rotates its logs at 10 MB. */
const LOG_LIMIT_BYTES = 16 * 2 ** 20;

function lastLines(path: string): string[] {
  try {
    const text = readRegularFile(path, { limitBytes: LOG_LIMIT_BYTES }) ?? '';
    const lines = text.split('\n').filter((line) => line.trim() !== '');
    // The environment is a list of which every entry counts.
    const shown = path.endsWith('.env') ? lines : lines.slice(-SHOWN_LINES);
    return shown.map((line) => withoutSecrets(line).slice(0, LONGEST_LINE));
  } catch (thrown) {
    return [toCniError(thrown).message];
  }
}

/** Consul's tokens and keys, in arguments (`-token x`) and in variables (`CONSUL_HTTP_TOKEN=x`); terminal control characters. */
export function withoutSecrets(line: string): string {
  return line
    .replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '')
    .replaceAll(/(-{1,2}(?:token|auth|http-auth)[ =])\S+/gi, '$1<hidden>')
    .replaceAll(/(\w*(?:TOKEN|SECRET|PASSWORD|_AUTH|_KEY)=)[^"\s,]+/gi, '$1<hidden>');
}
