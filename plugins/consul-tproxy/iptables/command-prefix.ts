import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import { readRegularFile } from '../../../shared/kernel/files.ts';
import { findProgram } from '../../../shared/process/run-program.ts';
import { withOwner, type Owner } from '../user-namespace.ts';

/** A program and its arguments to put before a program of iptables; empty where none is needed. Throws where the program is missing. */
export type CommandPrefix = () => readonly string[];

/** By variant. Called only when a program has to run: rules in nftables need none. */
export interface CommandPrefixes {
  readonly nft: CommandPrefix;
  readonly legacy: CommandPrefix;
  /** Whether only a program can write rules here, because its prefix enters the right user namespace. */
  readonly onlyPrograms: boolean;
}

/**
 * Runs `work` with the prefixes that iptables needs to match users in the namespace that this thread is in. They are valid while `work` runs.
 *
 * - The kernel refuses rules with an owner (EINVAL) unless they come from the user namespace that owns the network namespace, for example that of
 *   Docker's userns-remap. This process cannot enter it, because Node has threads; a child can.
 * - iptables asks the name service for every user, even for a number. A service that needs a network is unreachable here and stalls for
 *   a minute, so on hosts that have one iptables runs with an empty nsswitch.conf, which means local files only.
 *
 * Only the first reason makes a program necessary.
 */
export function withCommandPrefixes<T>(work: (prefixes: CommandPrefixes) => T): T {
  return withOwner((owner) => {
    const legacy = (): string[] => [...withoutNameServices(), ...inUserNamespace(owner)];
    return work({ legacy, nft: owner.isOwn ? () => [] : legacy, onlyPrograms: !owner.isOwn });
  });
}

function inUserNamespace({ fd, isOwn }: Owner): string[] {
  return isOwn ? [] : [requireProgram('nsenter'), `--user=/proc/${process.pid}/fd/${fd}`, '--'];
}

/** Sources of glibc's nsswitch.conf(5) that need no network. */
const LOCAL_SOURCES = ['files', 'compat', 'db', 'systemd', 'mymachines', 'altfiles', 'extrausers'];

function withoutNameServices(): string[] {
  const sources =
    /^passwd:(.*)$/m
      .exec(readNameServices())?.[1]
      ?.replaceAll(/\[[^\]]*\]|#.*/g, '')
      .split(/\s+/) ?? [];
  if (sources.every((source) => source === '' || LOCAL_SOURCES.includes(source))) return [];
  // By its path: the shell's PATH is the runtime's, which may lack it.
  const script = `${requireProgram('mount')} --bind /dev/null /etc/nsswitch.conf && exec "$0" "$@"`;
  return [requireProgram('unshare'), '--mount', '--', requireProgram('sh'), '-c', script];
}

function readNameServices(): string {
  try {
    return readRegularFile('/etc/nsswitch.conf') ?? '';
  } catch {
    // Without it the C library uses local files only.
    return '';
  }
}

function requireProgram(name: string): string {
  const program = findProgram(name);
  if (program !== undefined) return program;
  throw new CniError(CniCode.Internal, `this host has no ${name}, needed to match users in this namespace`, {
    details:
      'install util-linux, or set "backend": "nftables" for consul-tproxy (docs/reference/plugins/consul-tproxy.md)',
  });
}
