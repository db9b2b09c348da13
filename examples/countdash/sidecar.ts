import { type Server, type Socket, connect, createServer, isIP, isIPv6 } from 'node:net';
import type { Duplex } from 'node:stream';
import {
  type PeerCertificate,
  type TLSSocket,
  connect as connectTls,
  createServer as createTlsServer,
} from 'node:tls';
import { serverName, serviceOf, type Identity } from './certificates.ts';
import { listening } from './programs.ts';
import { checked, isErrno, libc } from '../../shared/kernel/libc.ts';

/** A mesh service and the address of its sidecar's public listener. */
export interface Upstream {
  readonly service: string;
  readonly virtualAddress: string;
  readonly host: string;
  readonly port: number;
}

export interface SidecarConfig {
  readonly identity: Identity;
  readonly inbound: {
    readonly port: number;
    /** Where the group's own program listens, on the loopback. */
    readonly appPort: number;
    /** Services that may connect; all others are denied. */
    readonly allowed: readonly string[];
  };
  readonly outbound:
    | { readonly mode: 'transparent'; readonly port: number; readonly upstreams: readonly Upstream[] }
    | { readonly mode: 'upstreams'; readonly listeners: readonly { port: number; upstream: Upstream }[] };
}

/** Writes one line of the sidecar's log. */
export type Log = (line: string) => void;

/**
 * The example's simulated Envoy: accepts the group's outgoing connections, forwards those to mesh services over mutual TLS to the
 * service's sidecar, and accepts incoming connections that the intentions allow. Resolves when all listeners are ready.
 */
export async function serveSidecar(config: SidecarConfig, log: Log): Promise<void> {
  await serveInbound(config, log);
  const { outbound, identity } = config;
  if (outbound.mode === 'transparent')
    await serveTransparent(identity, outbound.port, outbound.upstreams, log);
  else await serveUpstreams(identity, outbound.listeners, log);
}

/**
 * The public listener: requires a client certificate of the example's CA and forwards only services that the intentions
 * allow.
 */
export async function serveInbound({ identity, inbound }: SidecarConfig, log: Log): Promise<void> {
  const server = createTlsServer({
    cert: identity.certificate,
    key: identity.key,
    ca: identity.authority,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
    allowHalfOpen: true,
    handshakeTimeout: 5000,
  });
  server.on('secureConnection', (socket) => admit(socket));
  server.on('tlsClientError', (_error, socket) => {
    log(`closed a connection to ${identity.service} without a valid client certificate`);
    socket.destroy();
  });
  await listening(server, { port: inbound.port });

  function admit(socket: TLSSocket): void {
    socket.on('error', () => socket.destroy());
    const caller = serviceOf(identity.trustDomain, socket.getPeerCertificate().subjectaltname);
    if (caller !== undefined && inbound.allowed.includes(caller)) {
      splice(socket, connect({ host: '127.0.0.1', port: inbound.appPort, allowHalfOpen: true }));
      return;
    }
    log(`intention: ${caller ?? 'an unknown identity'} -> ${identity.service} denied`);
    socket.destroy();
  }
}

const CONNECT_MS = 5000;

/**
 * The listener to which the rules of transparent proxy redirect every outgoing connection. Connections to a virtual address go
 * through the mesh; all other destinations are passed through, which is Consul's default.
 */
export async function serveTransparent(
  identity: Identity,
  port: number,
  upstreams: readonly Upstream[],
  log: Log,
): Promise<void> {
  const byAddress = new Map(upstreams.map((upstream) => [upstream.virtualAddress, upstream]));
  const handle = (socket: Socket): void => {
    const destination = originalDestination(socket);
    const upstream = byAddress.get(destination?.address ?? '');
    if (upstream !== undefined) callService(socket, identity, upstream, log);
    // A connection to the listener itself: forwarding it would loop.
    else if (destination === undefined || destination.port === port) socket.resetAndDestroy();
    else passThrough(socket, destination.address, destination.port);
  };
  await listening(proxyServer(handle), { host: '127.0.0.1', port });
  await listening(proxyServer(handle), { host: '::1', port, ipv6Only: true }).catch(ignoreMissingIpv6);
}

/** One listener for each upstream that the job names: the program calls a port of its own loopback. */
export async function serveUpstreams(
  identity: Identity,
  listeners: readonly { port: number; upstream: Upstream }[],
  log: Log,
): Promise<void> {
  for (const { port, upstream } of listeners) {
    const server = proxyServer((socket) => callService(socket, identity, upstream, log));
    await listening(server, { host: '127.0.0.1', port });
  }
}

/** Half-open: an end in one direction is forwarded while the other direction continues. Paused until the peer is connected. */
function proxyServer(handle: (socket: Socket) => void): Server {
  return createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    handle(socket);
  });
}

function callService(socket: Socket, identity: Identity, upstream: Upstream, log: Log): void {
  const far = connectTls({
    host: upstream.host,
    port: upstream.port,
    cert: identity.certificate,
    key: identity.key,
    ca: identity.authority,
    minVersion: 'TLSv1.3',
    servername: serverName(identity.trustDomain, upstream.service),
    checkServerIdentity: (_host, certificate) => wrongService(identity, upstream, certificate),
  });
  far.once('secureConnect', () => {
    far.setTimeout(0);
    splice(socket, far);
  });
  giveUp(socket, far, `${identity.service} -> ${upstream.service}`, log);
}

/** The mesh verifies the service in the certificate's SPIFFE URI instead of a host name. */
function wrongService(
  identity: Identity,
  upstream: Upstream,
  certificate: PeerCertificate,
): Error | undefined {
  const service = serviceOf(identity.trustDomain, certificate.subjectaltname);
  if (service === upstream.service) return undefined;
  return new Error(`the peer is ${service ?? 'not part of this mesh'}, expected ${upstream.service}`);
}

function passThrough(socket: Socket, host: string, port: number): void {
  const far = connect({ host, port, allowHalfOpen: true, ...(isIP(host) === 6 ? { family: 6 } : {}) });
  far.once('connect', () => {
    far.setTimeout(0);
    splice(socket, far);
  });
  giveUp(socket, far, `a connection to ${host}:${port}`, () => undefined);
}

/** When the peer is unreachable or fails, the program sees a reset connection, as with Envoy. */
function giveUp(socket: Socket, far: Socket | TLSSocket, what: string, log: Log): void {
  far.setTimeout(CONNECT_MS, () => far.destroy(new Error('no connection in time')));
  far.once('error', (error: Error) => {
    if (!socket.destroyed) log(`${what}: ${error.message}`);
    socket.resetAndDestroy();
  });
  socket.once('close', () => far.destroy());
}

function ignoreMissingIpv6(thrown: NodeJS.ErrnoException): void {
  if (thrown.code !== 'EADDRNOTAVAIL' && thrown.code !== 'EAFNOSUPPORT') throw thrown;
}

/** Forwards data between two connections in both directions, half-close included; an error on one destroys both. */
export function splice(one: Duplex, other: Duplex): void {
  one.pipe(other);
  other.pipe(one);
  dieTogether(one, other);
}

/** An error or the final close of either closes the other. */
export function dieTogether(one: Duplex, other: Duplex): void {
  one.on('error', () => other.destroy());
  other.on('error', () => one.destroy());
  one.on('close', () => other.destroy());
  other.on('close', () => one.destroy());
}

export interface Destination {
  readonly address: string;
  readonly port: number;
}

/** linux/in.h, linux/in6.h, linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h */
const SOL_IP = 0;
const SOL_IPV6 = 41;
const SO_ORIGINAL_DST = 80;
const IP6T_SO_ORIGINAL_DST = 80;
const SOCKADDR_IN6_BYTES = 28;

/**
 * Where a connection was going before a REDIRECT rule brought it here: conntrack's note of it, as Envoy's original_dst filter
 * reads it. Undefined when the connection was not redirected.
 */
export function originalDestination(socket: Socket): Destination | undefined {
  const ipv6 = isIPv6(socket.localAddress ?? '') && !isMapped(socket.localAddress ?? '');
  const sockaddr = Buffer.alloc(SOCKADDR_IN6_BYTES);
  const length = Buffer.from(new Uint32Array([SOCKADDR_IN6_BYTES]).buffer);
  const [level, option] = ipv6 ? [SOL_IPV6, IP6T_SO_ORIGINAL_DST] : [SOL_IP, SO_ORIGINAL_DST];
  try {
    checked(
      'getsockopt(SO_ORIGINAL_DST)',
      libc().getsockopt(descriptor(socket), level, option, sockaddr, length),
    );
  } catch (thrown) {
    // ENOENT: conntrack has no entry. ENOPROTOOPT: it is not even loaded here, so nothing can have been redirected.
    if (isErrno(thrown, 'ENOENT', 'ENOPROTOOPT')) return undefined;
    throw thrown;
  }
  return ipv6 ? parseIn6(sockaddr) : parseIn4(sockaddr);
}

/**
 *     sockaddr_in      0       2       4               8
 *                      +-------+-------+---------------+
 *                      | AF    |port BE| address       |
 *                      +-------+-------+---------------+
 */
export function parseIn4(sockaddr: Buffer): Destination {
  return { address: sockaddr.subarray(4, 8).join('.'), port: sockaddr.readUInt16BE(2) };
}

/**
 *     sockaddr_in6     0       2       4           8                              24        28
 *                      +-------+-------+-----------+------------------------------+---------+
 *                      | AF    |port BE| flow info | address                      | scope   |
 *                      +-------+-------+-----------+------------------------------+---------+
 */
export function parseIn6(sockaddr: Buffer): Destination {
  const groups = Array.from({ length: 8 }, (_, index) => sockaddr.readUInt16BE(8 + 2 * index).toString(16));
  return {
    address: new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1),
    port: sockaddr.readUInt16BE(2),
  };
}

/** Node has no public way to a socket's descriptor; the handle's `fd` has been there since libuv came. */
function descriptor(socket: Socket): number {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  return fd;
}

function isMapped(address: string): boolean {
  return address.startsWith('::ffff:');
}
