import { isLoopback, parseCidr } from '../../shared/net/address.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { isNetworkNamespace } from '../../shared/kernel/namespace.ts';
import { addresses, type AddressInfo } from '../../shared/kernel/rtnetlink/addresses.ts';
import { linkByName, setLink, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';

/** The kernel's own name for it: CNI_IFNAME is not looked at. */
const NAME = 'lo';

/** The configuration has no keys of loopback's own. */
type Config = Readonly<Record<string, never>>;

/** Brings the loopback interface of a namespace up, and down again. See docs/reference/plugins/loopback.md. */
export const plugin: Plugin<Config> = {
  name: 'loopback',
  supportedVersions: CNI_VERSIONS,
  configure: () => ({ settings: {} }),
  add,
  del,
  check,
  gc: () => undefined,
  status: () => undefined,
};

/** The same call again changes nothing and tells the same. */
function add(call: Invocation<Config>): CniResult {
  using rtnetlink = Rtnetlink.openIn(call.netns);
  const link = loopback(rtnetlink, call);
  const before = loopbackAddresses(rtnetlink, link);
  if (!link.up) setLink(rtnetlink, link.index, { up: true });
  if (call.prevResult !== undefined) return call.prevResult;
  // The kernel gives 127.0.0.1/8 and ::1/128 when the interface comes up, unless they are there already.
  return describe(call, link, link.up ? before : loopbackAddresses(rtnetlink, link));
}

/** A namespace that is gone took its interface along. */
function del(call: Invocation<Config>): void {
  if (call.netns === '' || !isNetworkNamespace(call.netns)) return;
  using rtnetlink = Rtnetlink.openIn(call.netns);
  const link = linkByName(rtnetlink, NAME);
  if (link?.up === true) setLink(rtnetlink, link.index, { up: false });
}

function check(call: Invocation<Config>): void {
  using rtnetlink = Rtnetlink.openIn(call.netns);
  if (loopback(rtnetlink, call).up) return;
  throw new CniError(CniCode.Internal, 'loopback interface is down', { details: `${NAME} in ${call.netns}` });
}

function loopback(rtnetlink: Rtnetlink, { netns }: Invocation<Config>): LinkInfo {
  const link = linkByName(rtnetlink, NAME);
  if (link !== undefined) return link;
  throw new CniError(CniCode.InvalidNetworkNamespace, `there is no interface ${NAME} in ${netns}`);
}

/** Throws for an address that is no loopback address: this is not the interface that the runtime takes it for. */
function loopbackAddresses(rtnetlink: Rtnetlink, { index }: LinkInfo): AddressInfo[] {
  const found = addresses(rtnetlink, { index });
  const strange = found.find(({ address }) => {
    const cidr = parseCidr(address);
    return cidr === undefined || !isLoopback(cidr.address);
  });
  if (strange === undefined) return found;
  throw new CniError(
    CniCode.Internal,
    `loopback interface found with non-loopback address ${JSON.stringify(strange.address)}`,
    { details: `remove it from ${NAME}, or run the workload in a namespace of its own` },
  );
}

/** The first address of each family; a kernel without IPv6 has one. */
function describe({ netns }: Invocation<Config>, link: LinkInfo, found: readonly AddressInfo[]): CniResult {
  const firsts = (['ipv4', 'ipv6'] as const).map((family) =>
    found.find((address) => address.family === family),
  );
  return {
    interfaces: [{ name: NAME, mac: link.mac ?? '00:00:00:00:00:00', sandbox: netns }],
    ips: firsts.flatMap((info) => (info === undefined ? [] : [{ interface: 0, address: info.address }])),
    routes: [],
    dns: {},
  };
}
