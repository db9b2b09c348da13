import { statSync } from 'node:fs';
import { delegate, delegateAdd, findPlugin } from '../../shared/cni/delegate.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniDns, CniIp, CniRoute } from '../../shared/cni/types.ts';
import { requireSettings, usableSettings } from '../../shared/config/decode.ts';
import { configureIpam } from '../../shared/ipam/config.ts';
import { ipamAdd, ipamCheck, ipamDel, ipamGc, ipamStatus, type IpamCall } from '../../shared/ipam/ipam.ts';
import type { BridgeConfig } from './config.ts';

/** Of any verb: DEL and GC have what is valid of the configuration. */
type Call = Invocation<Partial<BridgeConfig>>;

/** The network's address management, wherever it runs. */
export interface Ipam {
  /** @param again what the same attachment had is being replaced */
  add(again: boolean): IpamAnswer;
  del(): void;
  /** Whether these addresses (with prefix length) are reserved for this attachment; false when it cannot be told. */
  holds(addresses: readonly string[]): boolean;
  check(): void;
  gc(): void;
  status(): void;
}

export interface IpamAnswer {
  readonly ips: readonly CniIp[];
  readonly routes: readonly CniRoute[];
  readonly dns: CniDns;
  /** Takes back what this ADD reserved, not what an earlier one had. */
  readonly undo: () => void;
}

/**
 * Our own host-local is called as a function: a second process would double the time of an ADD. Anything else, also a
 * host-local of another make, is run as the CNI specification says, with this plugin's own input and environment.
 * @returns undefined for a layer-2 network
 */
export function ipamOf(call: Call): Ipam | undefined {
  const { ipamType = '' } = call.config;
  if (ipamType === '') return undefined;
  return isThisProgram(ipamType, call.path) ? inProcess(call) : delegated(call, ipamType);
}

/** The name decides which plugin the one executable is; device and inode whether it is that executable. */
function isThisProgram(type: string, path: readonly string[]): boolean {
  if (type !== 'host-local') return false;
  try {
    const file = statSync(findPlugin(type, path), { bigint: true });
    const own = statSync('/proc/self/exe', { bigint: true });
    return file.dev === own.dev && file.ino === own.ino;
  } catch {
    // A missing plugin is reported by whoever runs it.
    return false;
  }
}

function inProcess(call: Call): Ipam {
  const configured = configureIpam(call.config.raw ?? {});
  const ipamCall = (): IpamCall => ({ ...call, config: requireSettings('host-local', configured) });
  const removal = { ...call, config: usableSettings(configured) };
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
    check: () => ipamCheck(ipamCall()),
    gc: () => ipamGc(removal),
    status: () => ipamStatus(ipamCall()),
  };
}

function delegated(call: Call, type: string): Ipam {
  // Before anything is changed: a missing plugin must not leave a trace.
  if (call.command === 'ADD') findPlugin(type, call.path);
  const undo = (): void => delegate(type, 'DEL', call);
  const attempt = (): IpamAnswer => {
    try {
      return { ...delegateAdd(type, call), undo };
    } catch (thrown) {
      // The error that counts is the one of ADD.
      throws(undo);
      throw thrown;
    }
  };
  return {
    add: (again) => {
      try {
        return attempt();
      } catch (thrown) {
        // The reference's host-local refuses an attachment that it knows ("duplicate allocation") for ever, although the
        // runtime may repeat ADD. The first attempt has let go of what was known.
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
