import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { waitUntil } from '../../shared/kernel/deadline.ts';
import { isErrno, KernelError } from '../../shared/kernel/libc.ts';
import { linkByIndex, setLink, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import {
  addPortVlans,
  deletePortVlans,
  portVlans,
  setBridgePort,
  type PortVlan,
} from '../../shared/kernel/rtnetlink/bridge-ports.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { BridgeVanished, NO_VLAN_FILTERING, type Bridge } from './bridge-link.ts';
import type { BridgeConfig } from './config.ts';
import { step } from './explain.ts';
import type { End, Pair } from './pair.ts';

type PortConfig = Pick<
  BridgeConfig,
  'hairpinMode' | 'portIsolation' | 'vlan' | 'vlanTrunk' | 'preserveDefaultVlan'
>;

/** Flags and VLANs of the host's end; a new port has them off, so nothing is sent for the default. */
export function configurePort(host: Rtnetlink, end: End, config: PortConfig): void {
  const { hairpinMode, portIsolation } = config;
  if (hairpinMode || portIsolation) {
    step(`set the bridge port flags of ${end.name}`, () =>
      setBridgePort(host, end.index, {
        ...(hairpinMode ? { hairpin: true } : {}),
        ...(portIsolation ? { isolated: true } : {}),
      }),
    );
  }
  const vlans = wantedVlans(config);
  if (vlans.length > 0) setVlans(host, end, vlans, config.preserveDefaultVlan);
}

export function wantsVlans({ vlan, vlanTrunk }: Pick<BridgeConfig, 'vlan' | 'vlanTrunk'>): boolean {
  return vlan !== 0 || vlanTrunk !== undefined;
}

/** What a port of this configuration carries; empty when it says nothing about VLANs. */
export function wantedVlans({ vlan, vlanTrunk }: Pick<BridgeConfig, 'vlan' | 'vlanTrunk'>): PortVlan[] {
  if (!wantsVlans({ vlan, vlanTrunk })) return [];
  // A trunk without a VLAN of its own keeps VLAN 1 for untagged frames.
  const native: PortVlan = { vid: vlan === 0 ? 1 : vlan, pvid: true, untagged: true };
  const tagged = (vlanTrunk ?? []).filter((vid) => vid !== native.vid).map((vid) => ({ vid }));
  return [native, ...ranges(tagged)];
}

function setVlans(host: Rtnetlink, end: End, vlans: readonly PortVlan[], keepDefault: boolean): void {
  try {
    if (!keepDefault) {
      const present = portVlans(host, end.index);
      if (present.length > 0) deletePortVlans(host, end.index, present);
    }
    addPortVlans(host, end.index, vlans);
  } catch (thrown) {
    if (!(thrown instanceof KernelError) || !isErrno(thrown, 'EOPNOTSUPP', 'EINVAL')) throw thrown;
    throw new CniError(
      CniCode.UnsupportedField,
      `failed to set the VLANs of ${end.name}: ${thrown.message}`,
      {
        details: NO_VLAN_FILTERING,
        cause: thrown,
      },
    );
  }
}

/** Neighbouring VLANs as one range each: a trunk of 4094 fits into one message. */
function ranges(vlans: readonly PortVlan[]): PortVlan[] {
  const result: PortVlan[] = [];
  for (const { vid } of vlans) {
    const last = result.at(-1);
    if (last !== undefined && (last.lastVid ?? last.vid) === vid - 1)
      result[result.length - 1] = { ...last, lastVid: vid };
    else result.push({ vid });
  }
  return result;
}

/** As long as the reference waits, in sum. */
const FORWARDING_MS = 2550;

/**
 * Waits until the bridge passes frames of the new port. Asking the kernel for the link makes it act on the carrier at once,
 * so the first question is answered `up`; kernels before 6.7 need a moment.
 */
export function waitForPort(host: Rtnetlink, pair: Pair, bridge: Bridge): void {
  let link: LinkInfo | undefined;
  const forwards = (): boolean => {
    link = linkByIndex(host, pair.host.index);
    if (link === undefined || link.master !== bridge.index) throw new BridgeVanished(bridge.name);
    return link.operState === 'up';
  };
  if (waitUntil(FORWARDING_MS, forwards)) return;
  throw new CniError(CniCode.TryAgainLater, `bridge port in error state: ${link?.operState ?? 'missing'}`, {
    details: `${pair.host.name} on bridge "${bridge.name}" got no carrier within ${FORWARDING_MS} ms`,
  });
}

/**
 * Tells everybody on the bridge which MAC the container's addresses have now. Whoever had talked to an earlier container
 * with the same address would send into the void until its neighbour entry runs out, 9 to 31 s.
 * Setting a MAC, even the same one, makes the kernel send gratuitous ARP and neighbour advertisements (arp_notify and
 * ndisc_notify are on); what it sent when the link came up was lost, because the port did not forward yet.
 */
export function announce(inside: Rtnetlink, { index, name, mac }: End): void {
  step(`announce the addresses of ${name}`, () => setLink(inside, index, { mac }));
}
