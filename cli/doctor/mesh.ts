import type { InventoryEntry } from '../../shared/attachments/inventory.ts';
import { processesBypassingProxy, processesHere } from '../../plugins/consul-tproxy/processes.ts';
import { decodeRequest, HOST_NAME_FILES } from '../../plugins/consul-tproxy/request.ts';
import { deadlineIn } from '../../shared/kernel/deadline.ts';
import { inNamespace } from '../../shared/kernel/namespace.ts';
import type { LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { handedOutAddress } from './consul.ts';
import { openDnsSocket, query, type DnsServer } from './dns-query.ts';
import type { Check, Finding } from './finding.ts';
import type { Host } from './examined-host.ts';
import type { Network } from './networks.ts';
import { connectToBridge } from './scratch-client.ts';

export const MESH_CHECKS: readonly Check<Host>[] = [
  { name: "processes of the proxy's user", group: 'mesh', run: proxyUsers },
  { name: 'Consul DNS address', group: 'mesh', run: dnsAddress },
  { name: 'Consul DNS, asked by this host', group: 'mesh', run: dnsAnswers },
  { name: 'Consul DNS, asked from the bridge', group: 'mesh', run: dnsFromBridge },
];

/** What only recursion can answer. */
const PUBLIC_NAME = 'hashicorp.com';

/** Consul answers SOA for its domain, whatever its ACLs are. */
const ofDomain = (name: string) => ({ type: 'SOA', name }) as const;

async function dnsAddress(host: Host): Promise<Finding[]> {
  const { consul, dns } = host.options;
  if (dns !== undefined) return [];
  const agent = await host.consul();
  const where = `Consul agent at ${consul}`;
  if (agent.dnsPort <= 0)
    return [
      {
        id: 'consul-dns-off',
        what: `Consul's DNS port is ${agent.dnsPort}`,
        where,
        remedy: 'set ports { dns = 8600 } in the configuration of Consul, and restart it and Nomad',
      },
    ];
  if (handedOutAddress(host, agent) !== undefined) return [];
  return [
    {
      id: 'consul-dns-loopback',
      what: `Consul's DNS listens on ${agent.dnsAddresses.join(', ')}`,
      where,
      remedy:
        'set addresses { dns = "{{ GetPrivateIP }}" } in the configuration of Consul, and restart it and Nomad',
    },
  ];
}

async function dnsAnswers(host: Host): Promise<Finding[]> {
  const { server, domain, recursors } = await handedOut(host);
  const [own, recursive] = await Promise.all([
    query(openDnsSocket(server.address), server, ofDomain(domain)),
    query(openDnsSocket(server.address), server, { type: 'A', name: PUBLIC_NAME }),
  ]);
  const where = `${server.address}:${server.port}`;
  if (own.is === 'silence')
    return [
      {
        id: 'consul-dns-silent',
        what: `${where} does not answer: ${own.reason}`,
        where,
        remedy: `start Consul, or find out what listens there: ss -lunp sport = :${server.port}`,
      },
    ];
  const found: Finding[] = [];
  if (own.rcode !== 'NOERROR')
    found.push({
      id: 'consul-dns-domain',
      what: `${where} answers ${own.rcode} for ${domain}`,
      where,
      remedy: `find out what listens there: ss -lunp sport = :${server.port}`,
    });
  if (recursive.is === 'silence' || recursive.rcode !== 'NOERROR' || recursive.answers === 0)
    found.push({
      id: 'consul-dns-recursion',
      what: `${where} does not resolve ${PUBLIC_NAME}: ${recursive.is === 'answer' ? recursive.rcode : recursive.reason}`,
      where,
      remedy:
        recursors?.length === 0
          ? 'set recursors = ["<your name server>"] in the configuration of Consul, then: consul reload'
          : `check that the recursors of Consul answer${recursors === undefined ? '' : ` (${recursors.join(', ')})`}`,
    });
  return found;
}

/** A query from a namespace on the first network's bridge that exists, with the address and the route of an allocation. */
async function dnsFromBridge(host: Host): Promise<Finding[]> {
  const { server, domain } = await handedOut(host);
  if (server.address.includes(':')) throw new Error(`${server.address} is an IPv6 address`);
  // A query to another host would need the masquerading of an allocation.
  if (!host.addresses().some(({ address }) => address.startsWith(`${server.address}/`)))
    throw new Error(`${server.address} is no address of this host`);
  const { link, network } = bridgeForQuery(host);
  const client = connectToBridge(link, network, () => openDnsSocket(server.address));
  try {
    const [outcome, own] = await Promise.all([
      query(client.opened, server, ofDomain(domain)),
      query(openDnsSocket(server.address), server, ofDomain(domain)),
    ]);
    if (outcome.is === 'answer') return [];
    if (own.is === 'silence') throw new Error('it does not answer this host either');
    const { name: bridge } = link;
    return [
      {
        id: 'consul-dns-unreachable',
        what: `${server.address}:${server.port} does not answer a query from bridge ${bridge}: ${outcome.reason}`,
        where: `bridge ${bridge}`,
        remedy: ['udp', 'tcp']
          .map((one) => `iptables -I INPUT -i ${bridge} -p ${one} --dport ${server.port} -j ACCEPT`)
          .join('; '),
      },
    ];
  } finally {
    client.close();
  }
}

/** @returns the recursors of Consul's configuration, undefined if they are not known */
async function handedOut(
  host: Host,
): Promise<{ server: DnsServer; domain: string; recursors: readonly string[] | undefined }> {
  const { dns } = host.options;
  if (dns !== undefined) return { server: dns, domain: 'consul.', recursors: undefined };
  const agent = await host.consul();
  const address = agent.dnsPort > 0 ? handedOutAddress(host, agent) : undefined;
  if (address === undefined) throw new Error('Nomad hands out no DNS address');
  return { server: { address, port: agent.dnsPort }, domain: agent.domain, recursors: agent.recursors };
}

function bridgeForQuery(host: Host): { link: LinkInfo; network: Network } {
  for (const network of host.networks()) {
    const link = host
      .links()
      .find(({ name, kind, up }) => name === network.bridge && kind === 'bridge' && up);
    if (link !== undefined && network.isGateway && network.rangeSets.length > 0) return { link, network };
  }
  const [first] = host.networks();
  throw new Error(`bridge ${first?.bridge ?? ''} does not exist before the first allocation`);
}

/** In each namespace with transparent proxy, as far as the time goes. */
function proxyUsers(host: Host): Finding[] {
  const deadline = deadlineIn(PROCESSES_LIMIT_MS);
  const meshed = host
    .attachments()
    .filter(({ namespace, args }) => namespace !== undefined && requestOf(args) !== undefined);
  return meshed.flatMap((attachment): Finding[] => {
    if (deadline.passed())
      throw new Error(`more than ${PROCESSES_LIMIT_MS} ms for ${meshed.length} allocations`);
    return bypassing(attachment);
  });
}

const PROCESSES_LIMIT_MS = 500;

function bypassing({ args, netns, containerId }: InventoryEntry): Finding[] {
  const request = decodeRequest(
    'CONSUL_IPTABLES_CONFIG',
    requestOf(args) ?? '',
    HOST_NAME_FILES,
    () => undefined,
  );
  const found = inNamespace(netns, () =>
    processesBypassingProxy(processesHere(), {
      uid: request.proxyUid,
      ports: [request.inboundPort, request.outboundPort],
    }),
  );
  return found.map(({ name, pid, uid }) => ({
    id: 'envoy-uid',
    what: `${name} (pid ${pid}) runs as user ${uid}`,
    where: `allocation ${containerId}`,
    remedy: 'give the task another user, or the proxy one of its own (transparent_proxy { uid = "..." })',
  }));
}

function requestOf(args: InventoryEntry['args']): string | undefined {
  return args.find(([key]) => key === 'CONSUL_IPTABLES_CONFIG')?.[1];
}
