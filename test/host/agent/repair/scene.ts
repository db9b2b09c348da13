import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { parsePortMapping, type Attachment } from '../../../../conflist/attachment.ts';
import { parseNetworkList, type NetworkList } from '../../../../conflist/network-list.ts';
import { DEFAULT_CACHE_DIR } from '../../../../conflist/result-cache.ts';
import { addNetwork, deleteNetwork, type Runtime } from '../../../../conflist/runtime.ts';
import { HOST, OUTSIDE, sh } from '../../../e2e/support/client-host.ts';
import { loadRoles } from '../../../../agent/repair/calls.ts';
import { Repairer } from '../../../../agent/repair/repairer.ts';
import { inNamespace } from '../../../../shared/kernel/namespace.ts';
import { binDir } from '../../../support/executables.ts';

/** A host with running containers on networks of Nomad's shape. */
export const runtime: Runtime = {
  binDirs: [binDir],
  cacheDir: DEFAULT_CACHE_DIR,
  environment: process.env,
  warn: () => undefined,
};

/** @param number of the network, 0 to 99: decides subnet, bridge and ports */
export function networkList(
  backend: 'iptables' | 'nftables' | undefined,
  number = 0,
  firewall: 'iptables' | 'nftables' | 'firewalld' | undefined = backend,
): NetworkList {
  return parseNetworkList(
    JSON.stringify({
      cniVersion: '1.0.0',
      name: `net${number}`,
      plugins: [
        {
          type: 'bridge',
          bridge: `br${number}`,
          ipMasq: true,
          ipMasqBackend: backend,
          isGateway: true,
          forceAddress: true,
          ipam: {
            type: 'host-local',
            ranges: [[{ subnet: `10.${number + 100}.0.0/20` }], [{ subnet: `fd00:${number + 100}::/64` }]],
            routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
          },
        },
        {
          type: 'firewall',
          backend: firewall,
          iptablesAdminChainName: 'NOMAD-ADMIN',
          ingressPolicy: 'same-bridge',
        },
        { type: 'portmap', backend, snat: true, capabilities: { portMappings: true } },
      ],
    }),
    'test list',
  );
}

export interface Container {
  readonly id: string;
  readonly list: NetworkList;
  readonly attachment: Attachment;
  readonly hostPort: number;
}

/** @param number of the container on its network; decides its ports 20000 + number (published) and 80 (its own) */
export function addContainer(list: NetworkList, number: number): Container {
  const id = `${list.name}-c${number}`;
  sh(`ip netns add ${id}`);
  const hostPort = 20000 + number + 1000 * Number(list.name.slice(3));
  const attachment: Attachment = {
    containerId: id,
    netns: `/var/run/netns/${id}`,
    ifname: 'eth0',
    args: [],
    capabilityArgs: { portMappings: parsePortMapping(`${hostPort}:80`) },
  };
  addNetwork(runtime, list, attachment);
  return { id, list, attachment, hostPort };
}

export function removeContainer({ id, list, attachment }: Container): void {
  deleteNetwork(runtime, list, attachment);
  sh(`ip netns del ${id}`);
}

/**
 * Everything that packet filters hold, in its order, without counters and comments. Tables of nf_tables are sorted, because programs that
 * load a ruleset create theirs again; those of iptables-nft are printed by iptables-save.
 */
export function rules(): string {
  const saved = sh(`
    for tool in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
      echo "== $tool"; $tool-save 2>/dev/null | grep -v '^#' | sed 's/ \\[[0-9:]*\\]$//' || true
    done`);
  const tables = sh('nft -s list ruleset 2>/dev/null').split(/^(?=table )/m);
  const own = tables.filter((table) => !/^table ip6? (filter|nat|mangle|raw) /.test(table)).sort();
  return [saved, ...own].join('');
}

/** Rules of another program, in chains that this suite uses, too, and in tables of its own. */
export function addForeignRules(): void {
  sh(`
    for tool in iptables ip6tables; do
      $tool -N FOREIGN
      $tool -A FORWARD -m comment --comment foreign -j FOREIGN
      $tool -I FORWARD -i dummy7 -j ACCEPT
      $tool -A INPUT -p tcp --dport 22 -j ACCEPT
      $tool -t nat -A POSTROUTING -o dummy7 -j MASQUERADE
      $tool -t nat -A PREROUTING -i dummy7 -p tcp --dport 99 -j REDIRECT --to-ports 98
      $tool -t mangle -A OUTPUT -p udp -j MARK --set-mark 7
    done
    nft -f - <<END
    table inet other {
      set addresses { type ipv4_addr; elements = { 192.0.2.1 } }
      chain forward {
        type filter hook forward priority 5
        ip saddr @addresses accept
      }
    }
END`);
}

/** Listens on port 80 of namespaces, in this process: without an address, Node does so at once. The kernel completes connections also while this process waits for another one. */
export function listenIn(...namespaces: string[]): Server[] {
  return namespaces.map((name) =>
    inNamespace(`/run/netns/${name}`, () => createServer((peer) => peer.destroy()).listen(80)),
  );
}

/**
 * Connects over both families from outside to each container's published port, and from the last two containers to the outside, which has no route to
 * containers (makeClientHost). @returns the connections that fail
 */
export function brokenTraffic(containers: readonly Container[]): string[] {
  const published = containers.map(({ hostPort }) => hostPort);
  return [
    ...brokenFrom(OUTSIDE.name, [HOST.ipv4, HOST.ipv6], published),
    ...containers.slice(-2).flatMap(({ id }) => brokenFrom(id, [OUTSIDE.ipv4, OUTSIDE.ipv6], [80])),
  ];
}

/** All at once: one that gets no answer takes a second. */
function brokenFrom(namespace: string, addresses: readonly string[], ports: readonly number[]): string[] {
  const targets = addresses.flatMap((address) => ports.map((port) => `${address}/${port}`));
  const attempt = `timeout 1 bash -c "exec 3<>/dev/tcp/$target" 2>/dev/null || echo "${namespace} -> $target"`;
  const script = `for target in ${targets.join(' ')}; do { ${attempt}; } & done; wait`;
  const failed = execFileSync('ip', ['netns', 'exec', namespace, 'bash', '-c', script], { encoding: 'utf8' });
  return failed.split('\n').filter((line) => line !== '');
}

/** Without tables and built-in chains that are empty: iptables-nft creates and lists them as it likes. */
export function comparable(text: string): string {
  return text.replaceAll(/^:[A-Z]+ ACCEPT\n/gm, '').replaceAll(/^\*\w+\nCOMMIT\n/gm, '');
}

/** What `weft repair --dry-run` finds, without its process. */
export async function missingHere(): Promise<readonly string[]> {
  return new Repairer(await loadRoles()).repair({ write: false }).missing;
}

/** A configuration of the service nftables: what `systemctl reload nftables` loads. */
export function writeNftablesConf(): void {
  mkdirSync('/etc', { recursive: true });
  writeFileSync(
    '/etc/nftables.conf',
    '#!/usr/sbin/nft -f\nflush ruleset\ntable inet filter {\n  chain input {\n    type filter hook input priority 0\n  }\n}\n',
  );
}

/** `weft repair --json` of the built executable. */
export function weftRepair(...options: string[]): {
  attachments: number;
  missing: string[];
  left: string[];
  problems: string[];
} {
  const text = execFileSync(
    'sh',
    ['-c', `"${binDir}/weft" repair --json ${options.join(' ')} || [ $? = 1 ]`],
    {
      encoding: 'utf8',
    },
  );
  return JSON.parse(text) as ReturnType<typeof weftRepair>;
}
