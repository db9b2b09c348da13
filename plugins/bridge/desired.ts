import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { parseCidr, type AddressFamily } from '../../shared/net/address.ts';
import { perObject, type Desired, type DesiredChange } from '../../shared/packetfilter/desired.ts';
import { chooseBackend } from '../../shared/packetfilter/select.ts';
import { masqueradeBackendOf } from './backend.ts';
import type { BridgeConfig } from './config.ts';
import { enableForwarding, missingForwarding } from './gateway.ts';
import { desiredMasquerade } from './iptables/masquerade.ts';
import { macSpoofRequests, type MacSpoofPort } from './nftables/macspoof.ts';
import { restoreMasquerade } from './nftables/masquerade.ts';

type Call = Invocation<BridgeConfig>;

/** Masquerading, the MAC check and forwarding. Interfaces and addresses are not repaired: CHECK reports them. */
export function desired(calls: readonly Call[]): Desired {
  const ofNode = calls.length === 0 ? 'iptables' : chooseBackend(undefined);
  const masqueraded = Map.groupBy(
    calls.filter(({ config }) => config.ipMasq),
    (call) => masqueradeBackendOf(call, call.config.ipMasqBackend ?? ofNode, ownAddresses(call)),
  );
  const inNftables = masqueraded.get('nftables') ?? [];
  const spoofChecks = calls.flatMap((call) => {
    const port = call.config.macspoofchk ? portOf(call.prevResult) : undefined;
    return port === undefined ? [] : [{ call, port }];
  });
  return {
    iptables: iptablesChanges(masqueraded.get('iptables') ?? []),
    nftables: [
      ...spoofChecks.map(
        ({ call, port }) =>
          (reader: Parameters<typeof macSpoofRequests>[0]) =>
            macSpoofRequests(reader, call, port),
      ),
      ...(inNftables.length === 0
        ? []
        : [
            (reader: Parameters<typeof restoreMasquerade>[0]) =>
              restoreMasquerade(
                reader,
                inNftables.map((call) => ({ attachment: call, addresses: ownAddresses(call) })),
              ),
          ]),
    ],
    settings: [
      {
        missing: () =>
          missingForwarding(families(calls)).map((path) => `${path.replaceAll('/', '.')} is not 1`),
        restore: () => {
          using host = Rtnetlink.open();
          enableForwarding(host, families(calls));
        },
      },
    ],
  };
}

/** Interfaces of one container on one network share a chain. */
function iptablesChanges(calls: readonly Call[]): DesiredChange[] {
  const earlier = new Map<string, string[]>();
  return calls.flatMap((call) => {
    const { network, containerId } = call;
    const key = `${network}/${containerId}`;
    const others = earlier.get(key);
    const addresses = [...(others ?? []), ...ownAddresses(call)];
    earlier.set(key, addresses);
    return others === undefined ? changesOfOne(call) : desiredMasquerade({ network, containerId, addresses });
  });
}

const changesOfOne = perObject((call: Call) =>
  desiredMasquerade({
    network: call.network,
    containerId: call.containerId,
    addresses: ownAddresses(call),
  }),
);

/** Of this attachment's interface, with prefix length. */
const ownAddresses = perObject(({ prevResult, ifname }: Call): readonly string[] => {
  const { ips = [], interfaces = [] } = prevResult ?? {};
  return ips
    .filter(({ interface: index }) => {
      const link = index === undefined ? undefined : interfaces[index];
      return link === undefined || (link.name === ifname && (link.sandbox ?? '') !== '');
    })
    .map(({ address }) => address);
});

function families(calls: readonly Call[]): AddressFamily[] {
  const gateways = calls.filter(({ config }) => config.isGateway).flatMap(ownAddresses);
  return [...new Set(gateways.flatMap((text) => parseCidr(text)?.address.family ?? []))];
}

/** The result of ADD lists the bridge, the host end and the container end, in this order. */
function portOf(result: CniResult | undefined): MacSpoofPort | undefined {
  const [, host, container] = result?.interfaces ?? [];
  return host === undefined || container?.mac === undefined
    ? undefined
    : { hostInterface: host.name, mac: container.mac };
}
