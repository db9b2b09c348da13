import { connect, createServer, isIP, type Server, type Socket } from 'node:net';
import { connect as connectTls, type PeerCertificate, type TLSSocket } from 'node:tls';
import { listening } from './listening.ts';
import { originalDestination } from './original-destination.ts';
import type { Identity, Tell, Upstream } from './sidecar.ts';
import { serverName, serviceOf } from './spiffe.ts';
import { splice } from './splice.ts';

const CONNECT_MS = 5000;

/**
 * The listener to which the rules of transparent proxy redirect every outgoing connection. Calls of a virtual address go into
 * the mesh; any other destination is connected as it is, which is Consul's default.
 */
export async function serveTransparent(
  identity: Identity,
  port: number,
  upstreams: readonly Upstream[],
  tell: Tell,
): Promise<void> {
  const byAddress = new Map(upstreams.map((upstream) => [upstream.virtualAddress, upstream]));
  const handle = (socket: Socket): void => {
    const destination = originalDestination(socket);
    const upstream = byAddress.get(destination?.address ?? '');
    if (upstream !== undefined) callService(socket, identity, upstream, tell);
    // Somebody called the listener itself: connecting "where he wanted to go" would call it again, without end.
    else if (destination === undefined || destination.port === port) socket.resetAndDestroy();
    else passOn(socket, destination.address, destination.port);
  };
  await listening(proxyServer(handle), { host: '127.0.0.1', port });
  await listening(proxyServer(handle), { host: '::1', port, ipv6Only: true }).catch(ignoreMissingIpv6);
}

/** One listener for each upstream that the job names: the program calls a port of its own loopback. */
export async function serveUpstreams(
  identity: Identity,
  listeners: readonly { port: number; upstream: Upstream }[],
  tell: Tell,
): Promise<void> {
  for (const { port, upstream } of listeners) {
    const server = proxyServer((socket) => callService(socket, identity, upstream, tell));
    await listening(server, { host: '127.0.0.1', port });
  }
}

/** Half-open, because an end in one direction must travel on while the other still speaks; paused until there is somebody to hear. */
function proxyServer(handle: (socket: Socket) => void): Server {
  return createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    handle(socket);
  });
}

function callService(socket: Socket, identity: Identity, upstream: Upstream, tell: Tell): void {
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
  giveUp(socket, far, `${identity.service} -> ${upstream.service}`, tell);
}

/** TLS asks for a host name; in the mesh the service in the certificate is what counts. */
function wrongService(
  identity: Identity,
  upstream: Upstream,
  certificate: PeerCertificate,
): Error | undefined {
  const service = serviceOf(identity.trustDomain, certificate.subjectaltname);
  if (service === upstream.service) return undefined;
  return new Error(`the peer is ${service ?? 'nobody of this mesh'}, wanted ${upstream.service}`);
}

function passOn(socket: Socket, host: string, port: number): void {
  const far = connect({ host, port, allowHalfOpen: true, ...(isIP(host) === 6 ? { family: 6 } : {}) });
  far.once('connect', () => {
    far.setTimeout(0);
    splice(socket, far);
  });
  giveUp(socket, far, `a connection to ${host}:${port}`, () => undefined);
}

/** A peer that cannot be reached, or that closes on us, is seen by the program as a reset connection, as from Envoy. */
function giveUp(socket: Socket, far: Socket | TLSSocket, what: string, tell: Tell): void {
  far.setTimeout(CONNECT_MS, () => far.destroy(new Error('no connection in time')));
  far.once('error', (error: Error) => {
    if (!socket.destroyed) tell(`${what}: ${error.message}`);
    socket.resetAndDestroy();
  });
  socket.once('close', () => far.destroy());
}

function ignoreMissingIpv6(thrown: NodeJS.ErrnoException): void {
  if (thrown.code !== 'EADDRNOTAVAIL' && thrown.code !== 'EAFNOSUPPORT') throw thrown;
}
