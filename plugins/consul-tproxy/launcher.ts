import { readFileSync } from 'node:fs';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { findProgram } from '../../shared/process/run.ts';
import { withOwner, type Owner } from './owner.ts';

/** Words to put before a program of iptables; empty where it can be run as it is. Throws where a needed program is missing. */
export type Launcher = () => readonly string[];

/** For each variant. To be asked when it comes to that: rules that stand in nftables need no program, whatever the host lacks. */
export interface Launchers {
  readonly nft: Launcher;
  readonly legacy: Launcher;
  /** Whether only a child can write rules here, which the words lead into the right user namespace. */
  readonly onlyPrograms: boolean;
}

/**
 * Runs `work` with what iptables must be wrapped in to match users in the namespace that this thread is in; the words hold while it runs.
 *
 * - Rules with an owner are refused (EINVAL) unless they come from the user namespace that owns the network namespace, as Docker's
 *   userns-remap makes them. This process cannot enter that one, because Node has threads; a child can.
 * - iptables asks the name service for every user, even for a number. A service behind a network is out of reach from in here and
 *   stalls for a minute, so on hosts that have one iptables is run with an empty nsswitch.conf: that means files only.
 *
 * Only the first makes a program necessary. The second is for those few that are run all the same.
 */
export function withLaunchers<T>(work: (launchers: Launchers) => T): T {
  return withOwner((owner) => {
    const legacy = (): string[] => [...withoutNameServices(), ...inUserNamespace(owner)];
    return work({ legacy, nft: owner.isOurs ? () => [] : legacy, onlyPrograms: !owner.isOurs });
  });
}

function inUserNamespace({ fd, isOurs }: Owner): string[] {
  return isOurs ? [] : [needProgram('nsenter'), `--user=/proc/${process.pid}/fd/${fd}`, '--'];
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
  // By its path: what is on ours need not be on the shell's PATH, which is that of whoever called us.
  const script = `${needProgram('mount')} --bind /dev/null /etc/nsswitch.conf && exec "$0" "$@"`;
  return [needProgram('unshare'), '--mount', '--', needProgram('sh'), '-c', script];
}

function readNameServices(): string {
  try {
    return readFileSync('/etc/nsswitch.conf', 'utf8');
  } catch {
    // Without the file the C library reads files only.
    return '';
  }
}

function needProgram(name: string): string {
  const program = findProgram(name);
  if (program !== undefined) return program;
  throw new CniError(CniCode.Internal, `this host has no ${name}, needed to match users in this namespace`, {
    details:
      'install util-linux, or set "backend": "nftables" for consul-tproxy (docs/reference/plugins/consul-tproxy.md)',
  });
}
