import { isLoopback, parseCidr } from '../../shared/net/address.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { findNamespace } from '../../shared/kernel/namespace.ts';
import { addresses, type AddressInfo } from '../../shared/kernel/rtnetlink/addresses.ts';
import { linkByName, links, setLink, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';

/** The kernel's name for it; CNI_IFNAME is ignored. */
const NAME = 'lo';

/** loopback has no configuration keys. */
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

/** Idempotent: a second ADD changes nothing and gives the same result. */
function add(call: Invocation<Config>): CniResult {
  using rtnetlink = Rtnetlink.openIn(call.netns);
  const link = loopback(rtnetlink, call);
  const before = loopbackAddresses(rtnetlink, link);
  if (!link.up) setLink(rtnetlink, link.index, { up: true });
  if (call.prevResult !== undefined) return call.prevResult;
  // The kernel adds 127.0.0.1/8 and ::1/128 when the interface comes up, unless it has them already.
  return describe(call, link, link.up ? before : loopbackAddresses(rtnetlink, link));
}

/**
 * When the namespace is gone, so is its interface. DEL of the whole list calls loopback last: if another interface is still up, the path
 * is now the namespace of another container, or of another network of this one, and both need `lo`.
 */
function del(call: Invocation<Partial<Config>>): void {
  const found = call.netns === '' ? undefined : findNamespace(call.netns);
  if (found?.is !== 'open') return;
  using namespace = found.namespace;
  using rtnetlink = Rtnetlink.openIn(namespace);
  const all = links(rtnetlink);
  const loopback = all.find(({ name }) => name === NAME);
  if (loopback?.up !== true || all.some(({ name, up }) => up && name !== NAME)) return;
  setLink(rtnetlink, loopback.index, { up: false });
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
