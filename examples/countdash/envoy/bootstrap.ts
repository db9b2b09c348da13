import { type Identity, serverName, spiffeId } from '../certificates.ts';
import type { SidecarConfig, Upstream } from '../sidecar.ts';

/** Envoy's admin interface, as Nomad configures it: reachable only inside the group's namespace. */
export const ADMIN = { host: '127.0.0.2', port: 19_001 } as const;

/** The environment variable that holds the private key: unlike a command line or a file, only the process's own user can read it. */
export const KEY_VARIABLE = 'WEFT_SIDECAR_KEY';

/**
 * A static Envoy configuration, equivalent to what Consul sends over xDS to a sidecar of a TCP service: the public listener with mutual
 * TLS and the intentions as an RBAC filter, and the outbound listener of transparent proxy or one listener for each upstream.
 */
export function envoyBootstrap({ identity, inbound, outbound }: SidecarConfig): object {
  const upstreams =
    outbound.mode === 'transparent' ? outbound.upstreams : outbound.listeners.map(({ upstream }) => upstream);
  return {
    node: { id: identity.service, cluster: identity.service },
    admin: { address: socketAddress(ADMIN.host, ADMIN.port) },
    static_resources: {
      listeners: [
        publicListener(identity, inbound),
        ...(outbound.mode === 'transparent'
          ? [outboundListener(outbound.port, outbound.upstreams)]
          : outbound.listeners.map(({ port, upstream }) => upstreamListener(port, upstream))),
      ],
      clusters: [
        staticCluster('local_app', '127.0.0.1', inbound.appPort),
        ...upstreams.map((upstream) => ({
          ...staticCluster(upstream.service, upstream.host, upstream.port),
          transport_socket: upstreamTls(identity, upstream.service),
        })),
        {
          name: PASSTHROUGH,
          type: 'ORIGINAL_DST',
          lb_policy: 'CLUSTER_PROVIDED',
          connect_timeout: CONNECT_TIMEOUT,
        },
      ],
    },
  };
}

/** Names of statistics: `cluster.original-destination.upstream_cx_total`, `listener.public_listener.ssl.handshake`, ... */
export const PASSTHROUGH = 'original-destination';
export const PUBLIC = 'public_listener';
export const AUTHORIZATION = 'connect_authz';

const CONNECT_TIMEOUT = '5s';
const TYPE = 'type.googleapis.com/envoy.extensions';

function publicListener(identity: Identity, { port, allowed }: SidecarConfig['inbound']): object {
  return {
    name: PUBLIC,
    stat_prefix: PUBLIC,
    traffic_direction: 'INBOUND',
    address: socketAddress('0.0.0.0', port),
    filter_chains: [
      {
        transport_socket: downstreamTls(identity),
        filters: [intentions(identity.trustDomain, allowed), tcpProxy(PUBLIC, 'local_app')],
      },
    ],
  };
}

/** Consul's default is to deny: only callers that an intention allows match a policy. */
function intentions(trustDomain: string, allowed: readonly string[]): object {
  const principals = allowed.map((service) => ({
    authenticated: { principal_name: { exact: spiffeId(trustDomain, service) } },
  }));
  const policies =
    principals.length === 0
      ? {}
      : { 'consul-intentions-layer4': { permissions: [{ any: true }], principals } };
  return {
    name: 'envoy.filters.network.rbac',
    typed_config: {
      '@type': `${TYPE}.filters.network.rbac.v3.RBAC`,
      stat_prefix: `${AUTHORIZATION}.`,
      rules: { action: 'ALLOW', policies },
    },
  };
}

/** A filter chain for each virtual address of the mesh; all other destinations are passed through, which is Consul's default. */
function outboundListener(port: number, upstreams: readonly Upstream[]): object {
  return {
    name: 'outbound_listener',
    stat_prefix: 'outbound_listener',
    traffic_direction: 'OUTBOUND',
    address: socketAddress('127.0.0.1', port),
    listener_filters: [
      {
        name: 'envoy.filters.listener.original_dst',
        typed_config: { '@type': `${TYPE}.filters.listener.original_dst.v3.OriginalDst` },
      },
    ],
    filter_chains: upstreams.map(({ service, virtualAddress }) => ({
      filter_chain_match: { prefix_ranges: [{ address_prefix: virtualAddress, prefix_len: 32 }] },
      filters: [tcpProxy(`upstream.${service}`, service)],
    })),
    default_filter_chain: { filters: [tcpProxy('upstream.passthrough', PASSTHROUGH)] },
  };
}

function upstreamListener(port: number, { service }: Upstream): object {
  return {
    name: service,
    stat_prefix: service,
    traffic_direction: 'OUTBOUND',
    address: socketAddress('127.0.0.1', port),
    filter_chains: [{ filters: [tcpProxy(`upstream.${service}`, service)] }],
  };
}

function tcpProxy(statPrefix: string, cluster: string): object {
  const type = `${TYPE}.filters.network.tcp_proxy.v3.TcpProxy`;
  return {
    name: 'envoy.filters.network.tcp_proxy',
    typed_config: { '@type': type, stat_prefix: statPrefix, cluster },
  };
}

function staticCluster(name: string, host: string, port: number): object {
  return {
    name,
    type: 'STATIC',
    connect_timeout: CONNECT_TIMEOUT,
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: socketAddress(host, port) } }] }],
    },
  };
}

/** Accepts certificates of the mesh's CA with an identity of its trust domain; which of them may connect is for the RBAC filter. */
function downstreamTls(identity: Identity): object {
  const anyIdentity = { prefix: `spiffe://${identity.trustDomain}/` };
  return {
    name: 'tls',
    typed_config: {
      '@type': `${TYPE}.transport_sockets.tls.v3.DownstreamTlsContext`,
      require_client_certificate: true,
      common_tls_context: tlsContext(identity, anyIdentity),
    },
  };
}

/** Expects exactly the called service's identity from the other sidecar. */
function upstreamTls(identity: Identity, service: string): object {
  return {
    name: 'tls',
    typed_config: {
      '@type': `${TYPE}.transport_sockets.tls.v3.UpstreamTlsContext`,
      sni: serverName(identity.trustDomain, service),
      common_tls_context: tlsContext(identity, { exact: spiffeId(identity.trustDomain, service) }),
    },
  };
}

function tlsContext({ certificate, authority }: Identity, spiffe: object): object {
  return {
    tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
    tls_certificates: [
      {
        certificate_chain: { inline_string: certificate },
        private_key: { environment_variable: KEY_VARIABLE },
      },
    ],
    validation_context: {
      trusted_ca: { inline_string: authority },
      match_typed_subject_alt_names: [{ san_type: 'URI', matcher: spiffe }],
    },
  };
}

function socketAddress(address: string, port: number): object {
  return { socket_address: { address, port_value: port } };
}
