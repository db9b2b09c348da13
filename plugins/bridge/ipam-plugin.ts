import { statSync } from 'node:fs';
import { delegate, delegateAdd, findPlugin } from '../../shared/cni/delegate.ts';
import { NeedsOwnProcess, type Invocation } from '../../shared/cni/plugin.ts';
import type { CniDns, CniIp, CniRoute } from '../../shared/cni/results.ts';
import { joinProblems } from '../../shared/config/sentences.ts';
import { requireSettings, usableSettings } from '../../shared/config/decode.ts';
import { configureIpam } from '../../shared/ipam/config.ts';
import { ipamAdd, ipamCheck, ipamDel, ipamGc, ipamStatus, type IpamCall } from '../../shared/ipam/ipam.ts';
import { settingsOfAdd, type BridgeConfig } from './config.ts';

/** Of any verb: DEL and GC have the valid part of the configuration. */
type Call = Invocation<Partial<BridgeConfig>>;

/** The network's IPAM plugin, in this process or as a program. */
export interface Ipam {
  /** @param again whether an earlier ADD of the same attachment is being replaced */
  add(again: boolean): IpamAnswer;
  del(): void;
  /** Whether these addresses (with prefix length) are leased to this attachment; false when unknown. */
  holds(addresses: readonly string[]): boolean;
  check(): void;
  gc(): void;
  status(): void;
}

export interface IpamAnswer {
  readonly ips: readonly CniIp[];
  readonly routes: readonly CniRoute[];
  readonly dns: CniDns;
  /** Releases the leases of this ADD, not those of an earlier one. */
  readonly undo: () => void;
}

/**
 * Weft's own host-local is called as a function: a second process would double the time of ADD. Any other IPAM plugin, also another
 * host-local, is run as the CNI specification says, with this plugin's stdin and environment.
 * @returns undefined for a layer-2 network
 * @throws NeedsOwnProcess in the node agent, for another IPAM plugin: ask before anything is changed
 */
export function ipamOf(call: Call): Ipam | undefined {
  const { ipamType } = call.config;
  if (ipamType === '') return undefined;
  if (ipamType === undefined) return ipamOfAdd(call);
  return isThisProgram(ipamType, call) ? inProcess(call) : delegated(call, ipamType);
}

/** For DEL with an invalid "ipam": as it was at ADD, if the runtime cached it, else host-local in its default directory. */
function ipamOfAdd(call: Call): Ipam | undefined {
  const config = settingsOfAdd(call, call.config.raw?.['type']) ?? {
    ipamType: 'host-local',
    raw: call.config.raw ?? {},
  };
  const { ipamType } = config;
  if (ipamType === '') return undefined;
  return isThisProgram(ipamType, call) ? inProcess({ ...call, config }) : delegated(call, ipamType);
}

/** Device and inode tell whether `host-local` in CNI_PATH is this executable, or the launcher that stands for it. */
function isThisProgram(type: string, { path, origin }: Call): boolean {
  if (type !== 'host-local') return false;
  try {
    const file = statSync(findPlugin(type, path), { bigint: true });
    const own = [statSync('/proc/self/exe', { bigint: true }), origin?.launcher];
    return own.some((one) => one !== undefined && file.dev === one.dev && file.ino === one.ino);
  } catch {
    // `delegate` reports a missing plugin.
    return false;
  }
}

function inProcess(call: Call): Ipam {
  const configured = configureIpam(call.config.raw ?? {});
  const ipamCall = (): IpamCall => ({ ...call, config: requireSettings('host-local', configured) });
  const removal = { ...call, config: usableSettings(configured) };
  // Before anything changes.
  if (call.command === 'ADD') requireSettings('host-local', configured);
  return {
    add: () => {
      const { release, ...answer } = ipamAdd(ipamCall());
      return { ...answer, undo: release };
    },
    del: () => ipamDel(removal),
    holds: (addresses) => {
      const ips = addresses.map((address) => ({ address }));
      const prevResult = { interfaces: [], ips, routes: [], dns: {} };
      return !throws(() => ipamCheck({ ...ipamCall(), prevResult }));
    },
    check: () => {
      if ('settings' in configured) {
        ipamCheck({ ...call, config: configured.settings });
        return;
      }
      call.warn(
        `invalid configuration: ${joinProblems(configured.problems)}; lease not checked, because no valid configuration of ADD is cached`,
      );
    },
    gc: () => ipamGc(removal),
    status: () => ipamStatus(ipamCall()),
  };
}

function delegated(call: Call, type: string): Ipam {
  if (call.origin?.inAgent === true) throw new NeedsOwnProcess();
  // Before anything changes: report a missing plugin.
  if (call.command === 'ADD') findPlugin(type, call.path);
  const undo = (): void => delegate(type, 'DEL', call);
  const attempt = (): IpamAnswer => {
    try {
      return { ...delegateAdd(type, call), undo };
    } catch (thrown) {
      // Report the error of ADD, not that of the clean-up.
      throws(undo);
      throw thrown;
    }
  };
  return {
    add: (again) => {
      try {
        return attempt();
      } catch (thrown) {
        // The reference's host-local rejects an attachment that has a lease ("duplicate allocation"), although the runtime may repeat
        // ADD. The first attempt has released that lease.
        if (type === 'host-local' || again) return attempt();
        throw thrown;
      }
    },
    del: undo,
    holds: () => false,
    check: () => delegate(type, 'CHECK', call),
    gc: () => delegate(type, 'GC', call),
    status: () => delegate(type, 'STATUS', call),
  };
}

function throws(work: () => void): boolean {
  try {
    work();
    return false;
  } catch {
    return true;
  }
}
