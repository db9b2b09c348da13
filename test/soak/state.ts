import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

/**
 * Everything that a plugin can change, as text: one line for each rule, set element, interface, address, route, lease and file. Counters, MAC
 * addresses, link-local addresses and handles are left out. Order within a chain is not compared.
 */
export type Lines = readonly string[];

/** The test's own host. */
export async function hostLines(): Promise<Lines> {
  return [...(await networkLines()), ...FILES.flatMap(filesBelow)].sort();
}

export async function namespaceLines(name: string): Promise<Lines> {
  return (await networkLines('nsenter', `--net=/run/netns/${name}`)).sort();
}

const SECTION = '=== ';
/** As few programs as possible: a long run reads the state thousands of times. A program of iptables runs only if its tables exist. */
const SCRIPT = `
section() { echo; echo "${SECTION}$*"; }
nft=$(nft -j -s list ruleset)
section nft; printf %s "$nft"
for family in ip ip6; do
  case "$nft" in *'{"family": "'$family'", "name": '*) section rules nft $family; \${family}tables-nft-save;; esac
  if [ -s /proc/self/net/\${family}_tables_names ]; then section rules legacy $family; \${family}tables-legacy-save; fi
done
section links; ip -j -d addr show
for family in 4 6; do
  section routes and policy; printf 'route show table all\\nrule show\\n' | ip -$family -batch -
done
section sysctl
for file in net/ipv4/ip_forward net/ipv6/conf/all/forwarding; do read value < /proc/sys/$file; echo $file=$value; done`;

/** @param prefix of the command, to run it in a namespace */
async function networkLines(...prefix: string[]): Promise<string[]> {
  const [file, ...args] = [...prefix, 'sh', '-c', SCRIPT];
  const { stdout } = await promisify(execFile)(file, args, { maxBuffer: 1 << 26 });
  return stdout
    .split(`\n${SECTION}`)
    .slice(1)
    .flatMap((section) => {
      const [title = '', ...lines] = section.trimEnd().split('\n');
      const body = lines.join('\n');
      if (title === 'nft') return nftLines(body);
      if (title === 'links') return linkLines(body);
      if (title.startsWith('rules')) return ruleLines(title, lines);
      return lines.filter((line) => !UNSTABLE.test(line)).map((line) => `${title}: ${tidy(line)}`);
    });
}

/** Routes that come and go by themselves: link-local and multicast ones, and those of an interface's link-local address. */
const UNSTABLE = /fe80|ff00::\/8|^multicast/;

function tidy(line: string): string {
  return line.replaceAll(/ (linkdown|dead)\b/g, '').trim();
}

/** Lines of iptables-save, each with its table; built-in chains whose policy is ACCEPT say nothing. */
function ruleLines(title: string, lines: Lines): string[] {
  let table = '';
  return lines.flatMap((line) => {
    if (line.startsWith('*')) table = line.slice(1);
    if (!/^[:-]/.test(line) || / ACCEPT \[/.test(line)) return [];
    return `${title} ${table}: ${line.replace(/ \[\d+:\d+\]$/, '')}`;
  });
}

/** A table of iptables-nft, which iptables-nft-save prints. */
const isIptables = (family: unknown, table: unknown): boolean =>
  /^ip6?$/.test(String(family)) && /^(filter|nat|mangle|raw|security)$/.test(String(table));

interface NftObject {
  readonly family?: string;
  readonly table?: string;
  readonly name?: string;
  readonly elem?: readonly unknown[];
  readonly handle?: number;
}

function nftLines(json: string): string[] {
  const { nftables } = JSON.parse(json) as { nftables: Record<string, NftObject>[] };
  return nftables.flatMap((entry) =>
    Object.entries(entry).flatMap(([kind, object]) => {
      const { family = '', table = '', name = '', elem = [] } = object;
      if (kind === 'metainfo' || isIptables(family, table === '' ? name : table)) return [];
      return [
        `nft ${kind}: ${JSON.stringify({ ...object, elem: undefined, handle: undefined })}`,
        ...elem.map((one) => `nft element ${family} ${table} ${name}: ${JSON.stringify(one)}`),
      ];
    }),
  );
}

interface Link {
  readonly ifname: string;
  readonly master?: string;
  readonly mtu: number;
  readonly ifalias?: string;
  readonly flags: readonly string[];
  readonly linkinfo?: {
    readonly info_kind?: string;
    readonly info_slave_data?: { readonly hairpin?: boolean };
  };
  readonly addr_info: readonly { readonly local: string; readonly prefixlen: number }[];
}

function linkLines(json: string): string[] {
  return (JSON.parse(json) as Link[]).flatMap(
    ({ ifname, master = '', mtu, ifalias = '', flags, linkinfo, addr_info }) => [
      `link ${ifname} ${linkinfo?.info_kind ?? ''} mtu ${mtu} master "${master}" alias "${ifalias}" ` +
        `${flags.includes('UP') ? 'up' : 'down'}${linkinfo?.info_slave_data?.hairpin === true ? ' hairpin' : ''}`,
      ...addr_info
        .filter(({ local }) => !local.startsWith('fe80'))
        .map(({ local, prefixlen }) => `address ${ifname} ${local}/${prefixlen}`),
    ],
  );
}

const FILES = ['/run/cni', '/run/weft', '/etc/netns', '/etc/weft', '/var/lib/cni'];
/** What a plugin may rewrite at any time: hints, locks; and what the runtime writes, which is this program. */
const IGNORED = /^\/run\/weft(\/ipam|\/locks|\/calls|$)|^\/var\/lib\/cni\/results|^\/etc\/netns$/;
const VOLATILE = /\/last_reserved_ip\.\d+$/;

function filesBelow(folder: string): string[] {
  return entriesOf(folder).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (IGNORED.test(path)) return [];
    if (entry.isDirectory()) return [`folder ${path}`, ...filesBelow(path)];
    const text = entry.isFile() && !VOLATILE.test(path) ? readFileSync(path, 'utf8') : '';
    return [`file ${path} ${JSON.stringify(text)}`];
  });
}

function entriesOf(folder: string): { name: string; isFile(): boolean; isDirectory(): boolean }[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw thrown;
  }
}

/** What has to be added to `from` to get `to`; a line that occurs twice counts twice. */
export function added(from: Lines, to: Lines): string[] {
  const left = new Map<string, number>();
  for (const line of from) left.set(line, (left.get(line) ?? 0) + 1);
  return to.filter((line) => {
    const count = left.get(line) ?? 0;
    if (count > 0) left.set(line, count - 1);
    return count === 0;
  });
}
